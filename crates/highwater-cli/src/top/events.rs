//! Keys of the terminal, and signals.

use std::{fmt, future::Future, io, pin::Pin};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::top::screen::Input;

/// A reason to end the watch, or to draw again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Ends the watch with this status.
    End(u8),
    Resize,
}

pub(super) struct Events {
    /// `None` without a screen.
    inputs: Option<UnboundedReceiver<Input>>,
    /// The status of the signal that came.
    signal: Pin<Box<dyn Future<Output = u8>>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Events {
    /// Registers the signals at once, because they may come before the first picture.
    pub(super) fn new(inputs: Option<UnboundedReceiver<Input>>) -> io::Result<Self> {
        Ok(Events { inputs, signal: Box::pin(signal()?) })
    }

    /// Waits for the next event.
    ///
    /// No event is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Event {
        let Some(inputs) = &mut self.inputs else { return Event::End((&mut self.signal).await) };
        tokio::select! {
            biased;
            status = &mut self.signal => Event::End(status),
            input = inputs.recv() => match input {
                Some(Input::Resize) => Event::Resize,
                Some(Input::End) | None => Event::End(0),
            },
        }
    }
}

/// Returns the status of the next signal. Ctrl-C ends a watch as intended; others are failures.
#[cfg(unix)]
fn signal() -> io::Result<impl Future<Output = u8>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => 0,
            _ = hang_up.recv() => 129,
            _ = terminate.recv() => 143,
        }
    })
}

#[cfg(not(unix))]
fn signal() -> io::Result<impl Future<Output = u8>> {
    Ok(async {
        // Without Ctrl-C, the system ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        0
    })
}
