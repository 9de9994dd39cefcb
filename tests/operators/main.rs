//! Events in the life of real logs: unclean restarts, full disks, and files that are cut,
//! renumbered or cannot be removed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

#[path = "../support/mod.rs"]
mod support;

mod claims;
#[cfg(target_os = "linux")]
mod handles;
mod headers;
mod last_close;
mod leftovers;
mod restarts;
mod rests;

use highwater::simulation::{Disk, Image, Survival};

/// Runs a future on a new runtime of this thread.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.unwrap().block_on(future)
}

/// Returns the disk as the next process finds it after a kill, on the same boot.
fn after_kill(disk: &Disk) -> Disk {
    Disk::with_image(disk.image().crash(Survival::Everything), 7)
}

/// Returns the segment files of an image, oldest first.
fn segments(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".wal")).collect()
}
