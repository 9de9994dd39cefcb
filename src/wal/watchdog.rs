//! The thread that watches the I/O of all logs of the process.
//!
//! A log registers when it begins a call and is not watched yet. The thread checks each log until
//! that log has nothing to watch. It ends with the last one, so idle logs have no thread.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::{
    executor::{Task, Watchable},
    sync::LockAlways,
};

/// The name of the thread, as in `/proc/self/task/*/comm`.
const NAME: &str = "highwater-watch";

/// The longest time between two looks for new logs.
const LOOK_AFTER: Duration = Duration::from_millis(250);

/// After a failure to start the thread, the next attempt is made this much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The moment from which the times of all checks count.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

static WATCHDOG: Mutex<Watchdog> =
    Mutex::new(Watchdog { new: Vec::new(), thread: None, failed_at: None });

struct Watchdog {
    /// Logs that the thread has not taken over yet.
    new: Vec<Weak<dyn Watchable>>,
    /// The running thread.
    thread: Option<thread::Thread>,
    /// When the last attempt to start the thread failed, if no later one succeeded.
    failed_at: Option<Instant>,
}

/// No thread could be started, so the log is not watched.
pub(super) struct NoThread {
    /// The reason, unless it has been reported since the last thread.
    pub(super) to_report: Option<io::Error>,
}

/// Has `log` checked until its check returns `None`.
///
/// # Errors
///
/// `NoThread` if no thread runs and none can be started. Tries that once a second.
pub(super) fn watch(log: &Weak<dyn Watchable>) -> Result<(), NoThread> {
    let mut watchdog = WATCHDOG.lock_always();
    if watchdog.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RETRY_AFTER) {
        return Err(NoThread { to_report: None });
    }
    if let Some(thread) = &watchdog.thread {
        // The new log may need checks at a shorter interval.
        thread.unpark();
    } else {
        match thread::Builder::new().name(NAME.to_owned()).spawn(run) {
            Ok(running) => watchdog.thread = Some(running.thread().clone()),
            Err(error) => {
                let is_reported = watchdog.failed_at.replace(Instant::now()).is_some();
                return Err(NoThread { to_report: (!is_reported).then_some(error) });
            }
        }
        watchdog.failed_at = None;
    }
    // The thread takes it over after this lock is free.
    watchdog.new.push(Weak::clone(log));
    Ok(())
}

/// Has the running thread check its logs at once, because one of them may need checks at a shorter
/// interval.
pub(super) fn look_soon() {
    WATCHDOG.lock_always().thread.iter().for_each(thread::Thread::unpark);
}

/// Runs `work` on a new thread, or here if there is no thread.
pub(super) fn run_apart(work: Task) {
    let work = Arc::new(Mutex::new(Some(work)));
    let apart = Arc::clone(&work);
    let run = move || run_once(&apart);
    if thread::Builder::new().name("highwater-stall".to_owned()).spawn(run).is_err() {
        run_once(&work);
    }
}

fn run_once(work: &Mutex<Option<Task>>) {
    let work = work.lock_always().take();
    work.into_iter().for_each(|work| work());
}

fn run() {
    let origin = ORIGIN.get_or_init(Instant::now);
    let mut logs: Vec<Weak<dyn Watchable>> = Vec::new();
    loop {
        {
            let mut watchdog = WATCHDOG.lock_always();
            logs.append(&mut watchdog.new);
            if logs.is_empty() {
                watchdog.thread = None;
                return;
            }
        }
        let mut wait = LOOK_AFTER;
        logs.retain(|log| {
            let next = log.upgrade().and_then(|log| log.check(origin.elapsed()));
            wait = wait.min(next.unwrap_or(LOOK_AFTER));
            next.is_some()
        });
        if !logs.is_empty() {
            thread::park_timeout(wait);
        }
    }
}
