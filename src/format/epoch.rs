//! The parts of an epoch: term, tag and count of cuts.
//!
//! A recovery and a truncation of the end add 1 to the epoch. A promotion of a replica must outrank
//! any number of them, and two promotions must never give the same epoch to different frames. So a
//! promotion raises the term, draws a tag, and sets the count of cuts to zero. A log that was never
//! promoted has the term 0 and the tag 0.
//!
//! ```text
//!  63       48 47             24 23           0
//!  |   term   |   tag (random)  |    cuts     |
//! ```

const TAG_SHIFT: u32 = 24;
const TERM_SHIFT: u32 = 48;
const TAG_MASK: u64 = 0xff_ffff;

/// Returns the number of promotions before the epoch began.
pub(crate) const fn term_of(epoch: u64) -> u64 {
    epoch >> TERM_SHIFT
}

/// Returns term and tag, which name one promotion.
pub(crate) const fn line_of(epoch: u64) -> u64 {
    epoch >> TAG_SHIFT
}

/// Returns the first epoch of the term after that of `above`. `None` if no term is left.
pub(crate) fn promoted(above: u64, random: u64) -> Option<u64> {
    let term = term_of(above).checked_add(1).filter(|term| *term <= term_of(u64::MAX))?;
    // 0 is the tag of a log that was never promoted.
    let tag = (random & TAG_MASK).max(1);
    Some(term << TERM_SHIFT | tag << TAG_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_outranks_every_cut_of_its_term() {
        let first = promoted(1, 0).unwrap();
        assert_eq!((term_of(first), first & TAG_MASK), (1, 0));
        assert!(first > promoted(0, u64::MAX).unwrap() >> TERM_SHIFT);
        for random in [0, 1, 7, u64::MAX] {
            let next = promoted(first + 1000, random).unwrap();
            assert_eq!(term_of(next), 2);
            assert!(next > first + TAG_MASK, "above all cuts of the first term");
            assert_eq!(line_of(next + 1), line_of(next), "a cut stays in its line");
        }
        assert_ne!(line_of(promoted(1, 5).unwrap()), line_of(promoted(1, 6).unwrap()));
        assert_eq!(promoted(u64::MAX, 1), None);
    }
}
