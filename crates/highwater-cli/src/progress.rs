//! A progress bar on standard error, for commands that take longer than a second.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    bytes: u64,
    total_bytes: u64,
    bar: Option<ProgressBar>,
    is_wanted: bool,
    template: &'static str,
}

impl Progress {
    /// Creates a bar that counts bytes. If `total_bytes` is 0, the total is unknown. `is_wanted` is
    /// false if other output would mix with the bar.
    pub(crate) fn new(total_bytes: u64, is_wanted: bool) -> Self {
        let is_wanted = is_wanted && io::stderr().is_terminal();
        let template = if total_bytes == 0 {
            "{spinner} {bytes}, {bytes_per_sec}"
        } else {
            "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left"
        };
        Progress { begun: Instant::now(), bytes: 0, total_bytes, bar: None, is_wanted, template }
    }

    /// Creates a bar for a known time, in milliseconds instead of bytes.
    pub(crate) fn of_time(total_ms: u64) -> Self {
        let mut progress = Self::new(total_ms, true);
        progress.template = "{wide_bar} {percent} %, {eta} left";
        progress
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        if !self.is_wanted || (self.bar.is_none() && self.begun.elapsed() < PATIENCE) {
            return;
        }
        let (total_bytes, template) = (self.total_bytes, self.template);
        let bar = self.bar.get_or_insert_with(|| {
            let bar =
                ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
            // A template that does not parse changes only the look of the bar.
            bar.set_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        bar.set_position(self.bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
