//! Epochs: whether a position still holds the record that it held before.
//!
//! Positions are used again only after a truncation of the end (a cut), which begins the next
//! epoch. A waiter or a reader keeps the epoch in which it began, and checks here whether a cut has
//! taken its position since. So growth beyond the cut never satisfies a waiter for a record that
//! the cut dropped.

use crate::{
    error::{Error, Result},
    format::frame::Seed,
    lsn::Lsn,
    sabotage::{self, Sabotage},
    sync::{AtomicU64, LockAlways, Mutex, Ordering},
};

/// A position that a waiter wants reached, in the epoch in which it began to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) end: Lsn,
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Epochs {
    log_id: [u8; 16],
    /// This and `seed` do not change while a task holds permits of the ring.
    current: AtomicU64,
    seed: AtomicU64,
    /// The cuts since the log was opened, as `(epoch, position)`, without those at or above a later
    /// cut. So both values grow from one cut to the next. Each cut begins a segment, so cuts are
    /// few.
    cuts: Mutex<Vec<(u64, Lsn)>>,
}

impl Epochs {
    pub(crate) fn new(log_id: [u8; 16], epoch: u64) -> Self {
        Epochs {
            log_id,
            current: AtomicU64::new(epoch),
            seed: AtomicU64::new(u64::from(Seed::new(log_id, epoch).value())),
            cuts: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Returns the seed of the current epoch's frames. The caller holds permits.
    pub(crate) fn seed(&self) -> Seed {
        // 32 bits were stored.
        Seed::from_value(u32::try_from(self.seed.load(Ordering::Acquire)).unwrap_or_default())
    }

    /// Begins `epoch`, the next one, at `cut`. Call it before any mark moves back: a thread that
    /// sees a mark of the new epoch then sees the cut. The caller holds all permits of the ring.
    pub(crate) fn begin(&self, epoch: u64, cut: Lsn) {
        let mut cuts = self.cuts.lock_always();
        let still = cuts.partition_point(|(_, earlier)| *earlier < cut);
        cuts.truncate(still);
        cuts.push((epoch, cut));
        self.seed.store(u64::from(Seed::new(self.log_id, epoch).value()), Ordering::Release);
        self.current.store(epoch, Ordering::Release);
    }

    /// Returns the lowest position at which the log was cut since `epoch`.
    pub(crate) fn cut_since(&self, epoch: u64) -> Option<Lsn> {
        if self.current() == epoch {
            return None;
        }
        let cuts = self.cuts.lock_always();
        let later = cuts.partition_point(|(began, _)| *began <= epoch);
        cuts.get(later).map(|(_, cut)| *cut)
    }

    /// Returns `Truncated` if a cut since the goal's epoch went below its end.
    #[inline]
    pub(crate) fn check(&self, goal: Goal) -> Result<()> {
        if self.current() == goal.epoch { Ok(()) } else { self.check_cuts(goal) }
    }

    /// Kept apart, because nearly every goal is of the current epoch.
    #[cold]
    fn check_cuts(&self, goal: Goal) -> Result<()> {
        match self.cut_since(goal.epoch) {
            Some(to) if to < goal.end && !sabotage::is_on(Sabotage::ForgetCuts) => {
                Err(Error::Truncated { to })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn lowest_cut_since_an_epoch_is_found() {
        let epochs = Epochs::new([7; 16], 1);
        let mut all: Vec<(u64, u64)> = Vec::new();
        let cuts = [800u64, 160, 480, 480, 320, 640, 960, 240, 1120, 1120, 88, 2000];
        for (epoch, cut) in (2..).zip(cuts) {
            epochs.begin(epoch, Lsn::new(cut));
            all.push((epoch, cut));
            assert_eq!(epochs.cut_since(epoch), None);
            assert_eq!(epochs.seed(), Seed::new([7; 16], epoch));
            for since in 1..epoch {
                let later = all.iter().filter(|(began, _)| *began > since);
                let lowest = later.map(|(_, cut)| Lsn::new(*cut)).min();
                assert_eq!(epochs.cut_since(since), lowest, "since {since} after {all:?}");
            }
        }
        let goal = |end, epoch| Goal { end: Lsn::new(end), epoch };
        assert!(epochs.check(goal(88, 1)).is_ok(), "everything below the cut is there");
        let cut = epochs.check(goal(96, 1)).unwrap_err();
        assert!(matches!(cut, Error::Truncated { to } if to == Lsn::new(88)), "{cut}");
        assert!(epochs.check(goal(96, 12)).is_ok(), "appended after the cut");
    }
}
