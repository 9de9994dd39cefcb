//! Decides when a follower lists the directory.
//!
//! The cost of a listing grows with the number of segments.
//!
//! The stamp of a storage changes when names change. Two changes within the granularity of a file
//! system's clock give the same stamp. So the directory is listed once more when the stamp has not
//! changed for a while, and after a number of looks in any case.

use std::time::{Duration, Instant};

use crate::wal::has_clock;

/// Longer than the granularity of any file system's clock: FAT has 2 s.
const SETTLED_AFTER: Duration = Duration::from_millis(2100);
/// The number of looks after which the directory is listed again at the latest.
const LOOKS_MAX: u32 = 512;

/// The state of the last listing.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed {
    seen: Option<(u128, Instant)>,
    is_settled: bool,
    look_count: u32,
}

impl Listed {
    /// Returns whether the names may have changed since the last listing.
    ///
    /// The caller then lists the names. It must have read `stamp` before.
    pub(super) fn is_due(&mut self, stamp: Option<u128>) -> bool {
        self.look_count += 1;
        // A simulation has no clock, so it lists every time.
        let Some(stamp) = stamp.filter(|_| has_clock()) else { return true };
        let is_due = match self.seen {
            Some((seen, since)) if seen == stamp => {
                let settles = !self.is_settled && since.elapsed() >= SETTLED_AFTER;
                self.is_settled |= settles;
                settles || self.look_count >= LOOKS_MAX
            }
            _ => {
                self.seen = Some((stamp, Instant::now()));
                self.is_settled = false;
                true
            }
        };
        if is_due {
            self.look_count = 0;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_is_due_after_a_change_and_periodically() {
        let mut listed = Listed::default();
        assert!(listed.is_due(Some(1)), "never listed");
        assert!(!listed.is_due(Some(1)));
        assert!(listed.is_due(Some(2)), "another stamp");
        assert!(!listed.is_due(Some(2)));
        for _ in 0..3 {
            assert!(listed.is_due(None), "no stamp");
        }
        let count = (0..2 * LOOKS_MAX).filter(|_| listed.is_due(Some(2))).count();
        assert_eq!(count, 2, "periodically");
        let then = Instant::now().checked_sub(SETTLED_AFTER).unwrap();
        listed.seen = Some((2, then));
        assert!(listed.is_due(Some(2)), "once more when it has settled");
        assert!(!listed.is_due(Some(2)));
    }
}
