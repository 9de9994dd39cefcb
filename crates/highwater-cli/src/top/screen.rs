//! The terminal: it shows pictures, and returns to its former state when it is dropped.

use std::{
    io::{self, Stdout, Write},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ratatui_core::terminal::{Frame, Terminal};
use ratatui_crossterm::{
    CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// How soon the thread that reads keys notices the end of the watch.
const PATIENCE: Duration = Duration::from_millis(100);

/// An action of the person at the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    End,
    /// The terminal has another size.
    Resize,
}

#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    is_over: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal, and starts to read its keys.
    pub(super) fn new() -> io::Result<(Self, UnboundedReceiver<Input>)> {
        // First, because the terminal must be restored if a later step fails.
        let is_over = Arc::new(AtomicBool::new(false));
        enable_raw_mode()?;
        let restored = Restored;
        restore_on_panic();
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        std::mem::forget(restored);
        let screen = Screen { terminal, is_over: Arc::clone(&is_over) };
        let (sender, inputs) = unbounded_channel();
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let input = match next_input() {
                    Ok(Some(input)) => input,
                    Ok(None) => continue,
                    // The terminal is gone.
                    Err(_) => Input::End,
                };
                if sender.send(input).is_err() || input == Input::End {
                    break;
                }
            }
        })?;
        Ok((screen, inputs))
    }

    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        restore();
    }
}

/// Restores the terminal when it is dropped.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        restore();
    }
}

/// If this fails, the terminal is gone.
fn restore() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = io::stdout().flush();
}

/// Restores the terminal before the message of a panic, which would otherwise be lost.
fn restore_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
    }));
}

/// Waits for a moment; returns `None` if there was no input that matters.
fn next_input() -> io::Result<Option<Input>> {
    if !event::poll(PATIENCE)? {
        return Ok(None);
    }
    Ok(input_of(&event::read()?))
}

fn input_of(event: &Event) -> Option<Input> {
    match event {
        Event::Resize(..) => Some(Input::Resize),
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('c' | 'C') if is_control => Some(Input::End),
                KeyCode::Char('q' | 'Q') if !is_control => Some(Input::End),
                KeyCode::Esc => Some(Input::End),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui_crossterm::crossterm::event::KeyEvent;

    #[test]
    fn keys_that_end_the_watch_are_known() {
        let key = |code, modifiers| input_of(&Event::Key(KeyEvent::new(code, modifiers)));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (code, modifiers) in [
            (KeyCode::Char('q'), none),
            (KeyCode::Char('Q'), KeyModifiers::SHIFT),
            (KeyCode::Esc, none),
            (KeyCode::Char('c'), control),
        ] {
            assert_eq!(key(code, modifiers), Some(Input::End), "{code:?}");
        }
        for (code, modifiers) in
            [(KeyCode::Char('c'), none), (KeyCode::Char('q'), control), (KeyCode::Enter, none)]
        {
            assert_eq!(key(code, modifiers), None, "{code:?}");
        }
        assert_eq!(input_of(&Event::Resize(1, 1)), Some(Input::Resize));
    }
}
