//! The names of segment files.

/// The number of a segment file. Numbers give the order of the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(pub(crate) u64);

/// The highest number of a log's file. No log counts that far, and the numbers of later segments
/// must fit into 64 bits.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;
/// How many numbers must be left for later segments.
const NUMBERS_LEFT_MIN: u64 = 1 << 32;

const DIGITS: usize = 20;
const SUFFIX: &str = ".wal";
const CUT_SUFFIX: &str = ".wal.cut";
const RECYCLED_SUFFIX: &str = ".wal.recycled";
const RECEIVING_SUFFIX: &str = ".wal.receiving";
const MANIFEST_SUFFIX: &str = ".cut.manifest";

impl Sequence {
    pub(crate) fn file_name(self) -> String {
        format!("{:0DIGITS$}{SUFFIX}", self.0)
    }

    /// Returns a name that is not in `taken`, for bytes that recovery cuts. A file of an earlier
    /// cut is never replaced. The second such file of a segment is `….cut.2`.
    pub(crate) fn free_cut_name(self, taken: &[String]) -> String {
        let plain = format!("{:0DIGITS$}{CUT_SUFFIX}", self.0);
        let numbered = (2u64..).map(|number| format!("{plain}.{number}"));
        let mut names = std::iter::once(plain.clone()).chain(numbered);
        names.find(|name| !taken.contains(name)).unwrap_or(plain)
    }

    /// Returns the name of the manifest of a cut of durable data. The number is that of the segment
    /// at the log's new end.
    pub(crate) fn manifest_name(self) -> String {
        format!("{:0DIGITS$}{MANIFEST_SUFFIX}", self.0)
    }

    /// Returns the name of a dropped file that waits to be reused. It is no part of the log,
    /// whatever it contains.
    pub(crate) fn recycled_name(self) -> String {
        format!("{:0DIGITS$}{RECYCLED_SUFFIX}", self.0)
    }

    /// Returns the name of a segment that a standby is just receiving.
    pub(crate) fn receiving_name(self) -> String {
        format!("{:0DIGITS$}{RECEIVING_SUFFIX}", self.0)
    }

    /// Parses the name of a segment; `None` for any other name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        number(name.strip_suffix(SUFFIX)?)
    }

    /// Parses the name of bytes that a cut kept, or of a manifest.
    pub(crate) fn parse_kept(name: &str) -> Option<Self> {
        if let Some(digits) = name.strip_suffix(MANIFEST_SUFFIX) {
            return number(digits);
        }
        let (digits, copy) = name.split_once(CUT_SUFFIX)?;
        let copy = copy.strip_prefix('.').unwrap_or(copy);
        copy.bytes().all(|byte| byte.is_ascii_digit()).then(|| number(digits)).flatten()
    }

    /// Returns whether enough numbers are left for later segments.
    pub(crate) fn leaves_room(self) -> bool {
        self.0 <= SEQUENCE_MAX - NUMBERS_LEFT_MIN
    }

    pub(crate) fn next(self) -> Self {
        Sequence(self.0.saturating_add(1))
    }
}

/// The name of the file that marks an unfinished copy of a log.
pub(crate) const UNFINISHED_COPY: &str = "UNFINISHED-COPY";

/// The name of the file that marks a standby: a copy that takes its bytes from another log.
pub(crate) const STANDBY: &str = "STANDBY";
/// The name of its next content while it is written.
pub(crate) const STANDBY_NEW: &str = "STANDBY.new";

fn number(digits: &str) -> Option<Sequence> {
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = plain.then(|| digits.parse().ok()).flatten();
    parsed.filter(|&number| number <= SEQUENCE_MAX).map(Sequence)
}

/// Returns whether a file was kept by an earlier cut, or is its manifest. Such files no longer
/// belong to the log.
pub(crate) fn is_kept_cut(name: &str) -> bool {
    Sequence::parse_kept(name).is_some()
}

/// Returns whether a file holds a segment that a standby is just receiving. It is no part of the
/// log, whatever it contains.
pub(crate) fn is_receiving(name: &str) -> bool {
    name.strip_suffix(RECEIVING_SUFFIX).and_then(number).is_some()
}

/// Returns whether a file waits to be reused as a segment.
pub(crate) fn is_recycled(name: &str) -> bool {
    name.strip_suffix(RECYCLED_SUFFIX).and_then(number).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_foreign_names_are_none() {
        let name = Sequence(42).file_name();
        assert_eq!(name, "00000000000000000042.wal");
        assert_eq!(Sequence::parse(&name), Some(Sequence(42)));
        let cut = Sequence(42).free_cut_name(&[]);
        assert_eq!(cut, "00000000000000000042.wal.cut");
        let second = Sequence(42).free_cut_name(std::slice::from_ref(&cut));
        assert_eq!(second, "00000000000000000042.wal.cut.2");
        let third = Sequence(42).free_cut_name(&[cut.clone(), second.clone()]);
        for kept in [&cut, &second, &third, &Sequence(42).manifest_name()] {
            assert_eq!(Sequence::parse_kept(kept), Some(Sequence(42)), "{kept}");
            assert_eq!(Sequence::parse(kept), None, "{kept}");
        }
        assert_eq!(Sequence::parse_kept("42.wal.cut"), None);
        let recycled = Sequence(42).recycled_name();
        assert!(is_recycled(&recycled) && !is_recycled(&name) && !is_recycled(&cut));
        assert_eq!((Sequence::parse(&recycled), Sequence::parse_kept(&recycled)), (None, None));
        let receiving = Sequence(42).receiving_name();
        assert!(is_receiving(&receiving) && !is_receiving(&name) && !is_recycled(&receiving));
        assert_eq!((Sequence::parse(&receiving), Sequence::parse_kept(&receiving)), (None, None));
        let highest = Sequence(SEQUENCE_MAX);
        assert_eq!(Sequence::parse(&highest.file_name()), Some(highest));
        assert!(!highest.leaves_room() && Sequence(1 << 62).leaves_room());
        for above in [SEQUENCE_MAX + 1, u64::MAX - 1, u64::MAX].map(Sequence) {
            assert_eq!(Sequence::parse(&above.file_name()), None);
            assert_eq!(Sequence::parse_kept(&above.free_cut_name(&[])), None);
        }
        for foreign in ["42.wal", "LOCK", "0000000000000000004x.wal", "99999999999999999999.wal"] {
            assert_eq!(Sequence::parse(foreign), None, "{foreign}");
        }
    }
}
