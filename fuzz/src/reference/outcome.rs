//! The outcome of reading a directory.

/// The outcome of opening a directory.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    NotALog,
    Corrupt,
    Unsupported,
    TooLarge,
    Opens(Opens),
}

/// A log that opens, with its records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opens {
    pub is_new: bool,
    pub was_closed: bool,
    pub is_cut: bool,
    pub first: u64,
    pub end: u64,
    pub committed: u64,
    pub records: Vec<(u64, Vec<u8>)>,
    /// True if the records end at damage below the commitment.
    pub is_damaged: bool,
}
