//! An allocator that counts large allocations: how many were made, and how many bytes are live.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Smaller allocations are not counted; a chunk's buffer is larger.
const LARGE_BYTES: usize = 200 << 10;

struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static MADE: AtomicUsize = AtomicUsize::new(0);

fn made(bytes: usize) {
    if bytes >= LARGE_BYTES {
        MADE.fetch_add(1, Ordering::Relaxed);
        let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

fn freed(bytes: usize) {
    if bytes >= LARGE_BYTES {
        LIVE.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        made(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        made(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        freed(layout.size());
        made(bytes);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        freed(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Counts from now on: the number of large allocations, and the peak of live bytes.
pub(crate) struct Since {
    live: usize,
    made: usize,
}

impl Since {
    pub(crate) fn now() -> Self {
        let live = LIVE.load(Ordering::Relaxed);
        PEAK.store(live, Ordering::Relaxed);
        Since { live, made: MADE.load(Ordering::Relaxed) }
    }

    pub(crate) fn peak_bytes(&self) -> usize {
        PEAK.load(Ordering::Relaxed) - self.live
    }

    pub(crate) fn live_bytes(&self) -> usize {
        LIVE.load(Ordering::Relaxed).saturating_sub(self.live)
    }

    pub(crate) fn made_count(&self) -> usize {
        MADE.load(Ordering::Relaxed) - self.made
    }
}
