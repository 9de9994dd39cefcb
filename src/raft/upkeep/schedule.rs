//! Starts the upkeep and orders its steps.

use std::sync::{Arc, Weak, atomic::Ordering};

use crate::{
    pipeline::embed::write_later,
    raft::{
        error::Result,
        store::Store,
        upkeep::{
            remove_segments::remove_segments,
            rewrite::rewrite_oldest_segment,
            write_checkpoint::{is_checkpoint_due, write_checkpoint},
        },
    },
};

/// Starts the upkeep if a segment was sealed or `is_wanted`. Call it after each change, without any
/// lock. It costs a few loads if nothing is due.
pub(crate) fn start_upkeep_if_due(store: &Arc<Store>, is_wanted: bool) {
    write_later(store.log());
    let upkeep = &store.upkeep;
    let rotations = store.log().measures().counters.rotations.load(Ordering::Relaxed);
    let has_rotated = upkeep.seen_rotations.swap(rotations, Ordering::Relaxed) != rotations;
    if has_rotated || is_wanted || upkeep.background.needs_poll() {
        let store = Arc::downgrade(store);
        // A job in place is polled within a task of a runtime, whose budget must not limit it.
        let work = move || tokio::task::unconstrained(run(store));
        upkeep.background.begin(move || Box::pin(work()));
    }
}

async fn run(store: Weak<Store>) {
    // Keeps the log open until the upkeep is done, even if the last handle is dropped meanwhile.
    let Some(store) = store.upgrade() else { return };
    match run_steps(&store).await {
        Err(error) if !error.is_closed() && !error.is_poisoned() => {
            // The next run does what this one left, for example after a lack of space.
            let log = store.log().storage().location();
            tracing::warn!(
                log,
                error = format_args!("{error:#}"),
                "the upkeep of a Raft log failed; it is tried again later"
            );
        }
        _ => {}
    }
}

async fn run_steps(store: &Arc<Store>) -> Result<()> {
    if is_checkpoint_due(store) {
        write_checkpoint(store).await?;
    }
    while rewrite_oldest_segment(store).await? {}
    remove_segments(store).await
}
