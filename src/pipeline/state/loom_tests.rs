//! Helpers of this folder's loom models. Each model is beside the type that it checks. Run it with
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --lib loom_tests`.
//!
//! A model that must fail is a negative control: the same model over a broken copy of one step. It
//! shows that loom would find that mistake in the real step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
};

/// Runs `model` under every interleaving within the bounds, and prints their number.
pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let count = count.load(Ordering::Relaxed);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    eprintln!("{name}: {count} executions");
    assert!(count > 1, "nothing ran beside anything");
}

/// A waker that counts, in a way that loom sees.
pub(crate) struct WakeCount(loom::sync::atomic::AtomicUsize);

impl WakeCount {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(WakeCount(loom::sync::atomic::AtomicUsize::new(0)));
        (Arc::clone(&bell), Waker::from(bell))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
