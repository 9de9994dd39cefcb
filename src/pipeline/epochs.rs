//! Epochs: whether what stood at a position still stands there.
//!
//! Positions are used again only after a cut, which begins the next epoch. Whoever waits for a
//! position, or reads on, keeps the epoch in which it began and asks here whether a cut has taken
//! its position since: growth beyond the cut never answers for what the cut took.

use crate::{
    error::{Error, Result},
    format::frame::Seed,
    lsn::Lsn,
    sabotage::{self, Sabotage},
    sync::{AtomicU64, Mutex, Ordering},
};

/// An end of what somebody wants, in the epoch in which they began to want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) end: Lsn,
    pub(crate) epoch: u64,
}

#[derive(Debug)]
pub(crate) struct Epochs {
    log_id: [u8; 16],
    /// Both stay as they are while anybody holds permits of the ring.
    current: AtomicU64,
    seed: AtomicU64,
    /// The cuts since the log was opened, `(epoch, position)`, but for those that a later cut went
    /// below: so both grow from one to the next. Each has its segment, so they are few.
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

    pub(crate) fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// What frames of the current epoch are sealed with. The caller holds permits.
    pub(crate) fn seed(&self) -> Seed {
        // 32 bits were stored.
        Seed::from_value(u32::try_from(self.seed.load(Ordering::Acquire)).unwrap_or_default())
    }

    /// Begins `epoch`, the next one, at `cut`. Before any mark moves back, so that whoever sees a
    /// mark of the new epoch sees the cut. All permits of the ring are the caller's.
    pub(super) fn begin(&self, epoch: u64, cut: Lsn) {
        let mut cuts = self.lock();
        let still = cuts.partition_point(|(_, earlier)| *earlier < cut);
        cuts.truncate(still);
        cuts.push((epoch, cut));
        self.seed.store(u64::from(Seed::new(self.log_id, epoch).value()), Ordering::Release);
        self.current.store(epoch, Ordering::Release);
    }

    /// The lowest position at which the log was cut since `epoch`.
    pub(crate) fn cut_since(&self, epoch: u64) -> Option<Lsn> {
        if self.current() == epoch {
            return None;
        }
        let cuts = self.lock();
        let later = cuts.partition_point(|(began, _)| *began <= epoch);
        cuts.get(later).map(|(_, cut)| *cut)
    }

    /// Whether all that stood below the goal's end, in its epoch, still does.
    pub(crate) fn check(&self, goal: Goal) -> Result<()> {
        match self.cut_since(goal.epoch) {
            Some(to) if to < goal.end && !sabotage::is_on(Sabotage::ForgetCuts) => {
                Err(Error::Truncated { to })
            }
            _ => Ok(()),
        }
    }

    /// Nothing panics and no user code runs under this lock.
    fn lock(&self) -> impl std::ops::DerefMut<Target = Vec<(u64, Lsn)>> + '_ {
        self.cuts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_cut_since_an_epoch_is_found_whatever_came_later() {
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
        assert!(epochs.check(goal(88, 1)).is_ok(), "all below the cut is there");
        let cut = epochs.check(goal(96, 1)).unwrap_err();
        assert!(matches!(cut, Error::Truncated { to } if to == Lsn::new(88)), "{cut}");
        assert!(epochs.check(goal(96, 12)).is_ok(), "what was appended behind the cut");
    }
}
