//! Temporary files and directories, which are removed on drop and by signals.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::parent;

/// The names to remove when a signal ends the process.
static NAMES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The maximum number of attempts to remove a path, 2 ms apart.
const REMOVALS_MAX: u32 = 100;
/// The number of consecutive checks that must not find the path.
const ABSENT_COUNT: u32 = 10;

fn names() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file or directory that is removed on drop or by a signal.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Creates a file beside `target`, under a random name.
    ///
    /// `create_new` follows no symbolic link and opens no existing file.
    pub(super) fn file_beside(target: &Path, suffix: &str) -> io::Result<(Self, File)> {
        start_signal_thread();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        // An export is as private as its log.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let stem = target.file_name().unwrap_or_default();
        let mut last = io::ErrorKind::AlreadyExists.into();
        for _ in 0..8 {
            let number = getrandom::u64().map_err(io::Error::other)?;
            let mut name = stem.to_owned();
            name.push(format!(".{number:016x}{suffix}"));
            let path = parent(target).join(name);
            // Locked first, because a signal between creation and insertion would leave the file.
            let mut names = names();
            match options.open(&path) {
                Ok(file) => {
                    names.insert(path.clone());
                    return Ok((Temporary { path }, file));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Creates a directory with exactly this name.
    pub(super) fn directory(path: PathBuf) -> io::Result<Self> {
        start_signal_thread();
        let mut names = names();
        #[cfg_attr(not(unix), allow(unused_mut, reason = "the mode is set on Unix"))]
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path)?;
        names.insert(path.clone());
        Ok(Temporary { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `put`, which renames the file, while no signal can remove it.
    pub(super) fn put_in_place(&self, put: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let mut names = names();
        put(&self.path)?;
        names.remove(&self.path);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut names = names();
        // After `put_in_place`, the name is no longer listed.
        if names.remove(&self.path) {
            let _ = remove(&self.path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Removes a path until it stays absent.
///
/// A log that is being opened may create files, and its directory again, during the removal.
fn remove_until_absent(path: &Path) {
    let mut absent_count = 0;
    for _ in 0..REMOVALS_MAX {
        let _ = remove(path);
        absent_count = if fs::symlink_metadata(path).is_err() { absent_count + 1 } else { 0 };
        if absent_count == ABSENT_COUNT {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Starts the thread that waits for signals, once. Returns when the signals are registered.
fn start_signal_thread() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let (ready, is_ready) = mpsc::channel();
        let wait = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            let Some(status) = runtime.block_on(wait_for_signal(ready)) else { return };
            // Locked until the exit, so that nothing is created or renamed any more.
            let names = names();
            for path in names.iter() {
                remove_until_absent(path);
            }
            std::process::exit(status);
        };
        // Without the thread, a signal ends the process at once, which is the default.
        if thread::Builder::new().name("signals".to_owned()).spawn(wait).is_ok() {
            // An error means that the thread ended or is ready.
            let _ = is_ready.recv();
        }
    });
}

/// Waits for a signal and returns the exit status that shells report for it.
#[cfg(unix)]
async fn wait_for_signal(ready: mpsc::Sender<()>) -> Option<i32> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [interrupt, terminate, hangup] = kinds.map(|kind| signal(kind).ok());
    let (mut interrupt, mut terminate, mut hangup) = (interrupt?, terminate?, hangup?);
    drop(ready);
    let kind = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    };
    Some(128 + kind.as_raw_value())
}

#[cfg(not(unix))]
async fn wait_for_signal(ready: mpsc::Sender<()>) -> Option<i32> {
    // The first poll registers the handler.
    let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
    let polled = std::future::poll_fn(|context| {
        use std::{future::Future, task::Poll};
        Poll::Ready(stopped.as_mut().poll(context).map(|ended| ended.is_ok()))
    });
    let polled = polled.await;
    drop(ready);
    let is_interrupted = match polled {
        std::task::Poll::Ready(is_interrupted) => is_interrupted,
        std::task::Poll::Pending => stopped.await.is_ok(),
    };
    is_interrupted.then_some(130)
}
