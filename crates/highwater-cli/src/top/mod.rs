//! `top`: shows a log in use, look after look.
//!
//! A look gives a [`sample`], the [`history`] derives rates and changes from samples, and
//! [`picture`] or [`line`] shows them. These four are pure. [`sampler`] reads the log. [`display`]
//! chooses between pictures and lines; [`screen`] uses the terminal.

mod display;
mod events;
mod history;
mod line;
mod picture;
mod sample;
mod sampler;
mod screen;
#[cfg(test)]
mod tests;
mod words;

use std::{
    num::NonZeroU64,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::SignedDuration;
use tokio::time::sleep;

use crate::{
    output::{CommandResult, Failure, snapshot},
    records::runtime,
    text::shown,
};
use display::{Display, Occasion};
use events::{Event, Events};
use history::History;
use picture::View;
use sample::Sample;
use sampler::{Sampler, pause_after};

pub(crate) const EXAMPLES: &str = "\
Shows the marks, rates, segments and slots of a log, the free space of its disk, and each change,
such as a truncation or a close. q, Esc and Ctrl-C end it. If standard output is no terminal, it
prints one line for each look.

A look reads what `stat` reads, and the new records to count them. Looking takes at most a tenth of
the time: if a look is slow, the next one comes later. The health of a log (`Wal::health`) is not
published outside of its process.

Examples:
  highwater top data/log
  highwater top data/log --interval 5s --count 12 >> log.txt";

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// A look that takes longer than this is reported while it lasts.
const SLOW_LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct TopOptions {
    /// The log's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The time between two looks, such as 500ms, 2s or 1m
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Ends after this number of looks
    #[arg(long, value_name = "COUNT")]
    count: Option<NonZeroU64>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
    let interval = parsed.ok_or("write a number and a unit, such as 500ms, 2s or 1m")?;
    match (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        true => Ok(interval),
        false => Err("from 100ms to 1h".to_owned()),
    }
}

pub(crate) fn run(options: &TopOptions) -> CommandResult {
    // A wrong path is an error now. Later, the log may disappear and come again.
    drop(snapshot(&options.directory)?);
    let runtime = runtime()?;
    let result = runtime.block_on(watch(options));
    // A read of a disk that hangs must not keep the command from ending.
    runtime.shutdown_background();
    result
}

async fn watch(options: &TopOptions) -> CommandResult {
    let (display, inputs) = Display::new()?;
    let mut watch = Watch {
        directory: shown(&options.directory),
        begun: Instant::now(),
        history: History::default(),
        display,
        events: Events::new(inputs)?,
    };
    let mut sampler = Sampler::new(&options.directory, watch.begun);
    let mut count = 0;
    loop {
        let started = Instant::now();
        let (returned, sample) = match watch.look(sampler).await? {
            ControlFlow::Continue(taken) => taken,
            ControlFlow::Break(status) => return Ok(status),
        };
        sampler = returned;
        watch.history.push(sample);
        watch.show(None, Occasion::NewSample)?;
        count += 1;
        if options.count.is_some_and(|most| count >= most.get()) {
            return Ok(0);
        }
        let pause = pause_after(started.elapsed(), options.interval);
        if let ControlFlow::Break(status) = watch.rest(pause).await? {
            return Ok(status);
        }
    }
}

#[derive(Debug)]
struct Watch {
    directory: String,
    begun: Instant,
    history: History,
    display: Display,
    events: Events,
}

impl Watch {
    /// Takes a sample; breaks with the status if the watch ends before.
    async fn look(
        &mut self,
        sampler: Sampler,
    ) -> Result<ControlFlow<u8, (Sampler, Sample)>, Failure> {
        let started = Instant::now();
        let mut look = std::pin::pin!(sampler.take());
        loop {
            let occasion = tokio::select! {
                biased;
                event = self.events.next() => match event {
                    Event::End(status) => return Ok(ControlFlow::Break(status)),
                    Event::Resize => Occasion::Resize,
                },
                taken = &mut look => return Ok(ControlFlow::Continue(taken)),
                () = sleep(SLOW_LOOK) => Occasion::Waiting,
            };
            let waiting = Some(started.elapsed()).filter(|waiting| *waiting >= SLOW_LOOK);
            self.show(waiting, occasion)?;
        }
    }

    /// Waits for the next look; breaks with the status if the watch ends before.
    async fn rest(&mut self, pause: Duration) -> Result<ControlFlow<u8>, Failure> {
        let mut pause = std::pin::pin!(sleep(pause));
        loop {
            tokio::select! {
                biased;
                event = self.events.next() => match event {
                    Event::End(status) => return Ok(ControlFlow::Break(status)),
                    Event::Resize => self.show(None, Occasion::Resize)?,
                },
                () = &mut pause => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    fn show(&mut self, waiting: Option<Duration>, occasion: Occasion) -> Result<(), Failure> {
        let now = self.begun.elapsed();
        let view = View { directory: &self.directory, history: &self.history, now, waiting };
        self.display.show(&view, occasion)
    }
}

#[cfg(test)]
mod interval_tests {
    use super::*;

    #[test]
    fn interval_has_a_unit_and_bounds() {
        let ms = |text| interval(text).map(|interval| interval.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("2s"), Ok(2000));
        assert_eq!(ms("1m"), Ok(60_000));
        for text in ["", "2", "-2s", "1d", "fast"] {
            assert!(ms(text).unwrap_err().contains("a number and a unit"), "{text}");
        }
        for text in ["99ms", "2h"] {
            assert!(ms(text).unwrap_err().contains("from 100ms"), "{text}");
        }
    }
}
