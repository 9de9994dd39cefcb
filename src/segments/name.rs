//! The names of segment files.

/// The place of a segment file in the log's order: its name, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(pub(crate) u64);

const DIGITS: usize = 20;
const SUFFIX: &str = ".wal";
const CUT_SUFFIX: &str = ".wal.cut";

impl Sequence {
    pub(crate) fn file_name(self) -> String {
        format!("{:0DIGITS$}{SUFFIX}", self.0)
    }

    /// The name under which recovery keeps the bytes that it cut.
    pub(crate) fn cut_name(self) -> String {
        format!("{:0DIGITS$}{CUT_SUFFIX}", self.0)
    }

    /// `None` for the name of a file that is none of the log's.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(SUFFIX)?;
        let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok().map(Sequence)).flatten()
    }

    pub(crate) fn next(self) -> Self {
        Sequence(self.0.saturating_add(1))
    }
}

/// Whether a name is that of bytes kept by an earlier cut, which no longer belong to the log.
pub(crate) fn is_kept_cut(name: &str) -> bool {
    let digits = name.strip_suffix(CUT_SUFFIX);
    digits
        .is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_sequences_and_foreign_ones_are_none() {
        let name = Sequence(42).file_name();
        assert_eq!(name, "00000000000000000042.wal");
        assert_eq!(Sequence::parse(&name), Some(Sequence(42)));
        assert!(is_kept_cut(&Sequence(42).cut_name()));
        for foreign in ["42.wal", "LOCK", "0000000000000000004x.wal", "99999999999999999999.wal"] {
            assert_eq!(Sequence::parse(foreign), None, "{foreign}");
        }
    }
}
