//! The operations of the clients, with their outcomes.

use std::{fmt, time::Duration};

/// The clients with this ID and above read all keys at the end.
pub(crate) const FINAL_READERS: u64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Put(String),
    Cas { expected: Option<String>, value: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A get returned this value.
    Read(Option<String>),
    /// A put or compare-and-set was applied.
    Written,
    /// A compare-and-set found this value instead of the expected one.
    Mismatch(Option<String>),
    /// No reply in time. A write may take effect at any time after its beginning, or never.
    Unknown,
}

/// One operation on one key. All operations use the same clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: u64,
    pub(crate) key: String,
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
}

impl Operation {
    pub(crate) fn is_acknowledged_write(&self) -> bool {
        self.outcome == Outcome::Written
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let Operation { client, key, begin, end, .. } = self;
        write!(f, "{begin:>12.6?} {end:>12.6?} client {client:<3} {key:<8} ")?;
        match &self.action {
            Action::Get => f.write_str("get")?,
            Action::Put(value) => write!(f, "put {value}")?,
            Action::Cas { expected, value } => write!(f, "cas {} -> {value}", word(expected))?,
        }
        match &self.outcome {
            Outcome::Read(value) => write!(f, " = {}", word(value)),
            Outcome::Written => f.write_str(" = written"),
            Outcome::Mismatch(found) => write!(f, " = mismatch, found {}", word(found)),
            Outcome::Unknown => f.write_str(" = unknown"),
        }
    }
}
