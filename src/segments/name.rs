//! The names of segment files.

/// The place of a segment file in the log's order: its name, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(pub(crate) u64);

const DIGITS: usize = 20;
const SUFFIX: &str = ".wal";
const CUT_SUFFIX: &str = ".wal.cut";
const RECYCLED_SUFFIX: &str = ".wal.recycled";
const MANIFEST_SUFFIX: &str = ".cut.manifest";

impl Sequence {
    pub(crate) fn file_name(self) -> String {
        format!("{:0DIGITS$}{SUFFIX}", self.0)
    }

    /// A name under which recovery keeps bytes that it cut: one that isn't among those `taken`, as
    /// what an earlier cut kept is never replaced. The second such file of a segment is `….cut.2`.
    pub(crate) fn free_cut_name(self, taken: &[String]) -> String {
        let plain = format!("{:0DIGITS$}{CUT_SUFFIX}", self.0);
        let numbered = (2u64..).map(|number| format!("{plain}.{number}"));
        let mut names = std::iter::once(plain.clone()).chain(numbered);
        names.find(|name| !taken.contains(name)).unwrap_or(plain)
    }

    /// The name of the file that tells what a cut of durable data took away, by the segment that
    /// began the log's new end.
    pub(crate) fn manifest_name(self) -> String {
        format!("{:0DIGITS$}{MANIFEST_SUFFIX}", self.0)
    }

    /// The name of a file that was this segment and waits to be another: no part of the log, whatever
    /// is in it.
    pub(crate) fn recycled_name(self) -> String {
        format!("{:0DIGITS$}{RECYCLED_SUFFIX}", self.0)
    }

    /// `None` for the name of a file that is none of the log's.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        number(name.strip_suffix(SUFFIX)?)
    }

    /// The sequence number of bytes kept by a cut, or of what tells of it.
    pub(crate) fn parse_kept(name: &str) -> Option<Self> {
        if let Some(digits) = name.strip_suffix(MANIFEST_SUFFIX) {
            return number(digits);
        }
        let (digits, copy) = name.split_once(CUT_SUFFIX)?;
        let copy = copy.strip_prefix('.').unwrap_or(copy);
        copy.bytes().all(|byte| byte.is_ascii_digit()).then(|| number(digits)).flatten()
    }

    pub(crate) fn next(self) -> Self {
        Sequence(self.0.saturating_add(1))
    }
}

/// The name of the file that a copy of a log has until it is whole.
pub(crate) const UNFINISHED_COPY: &str = "UNFINISHED-COPY";

fn number(digits: &str) -> Option<Sequence> {
    let plain = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok().map(Sequence)).flatten()
}

/// Whether a name is that of bytes kept by an earlier cut, which no longer belong to the log, or of
/// what tells of them.
pub(crate) fn is_kept_cut(name: &str) -> bool {
    Sequence::parse_kept(name).is_some()
}

/// Whether a name is that of a file that waits to be a segment again.
pub(crate) fn is_recycled(name: &str) -> bool {
    name.strip_suffix(RECYCLED_SUFFIX).and_then(number).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_sequences_and_foreign_ones_are_none() {
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
        for foreign in ["42.wal", "LOCK", "0000000000000000004x.wal", "99999999999999999999.wal"] {
            assert_eq!(Sequence::parse(foreign), None, "{foreign}");
        }
    }
}
