//! Torn tail or corruption: the decision about the end of a log, as one table.
//!
//! `recovery` refuses more than this table: a file that is cut short, a commitment within a unit,
//! and a missing segment.
//!
//! `end` (X in `docs/DURABILITY.md`) is the first position without a valid unit. `commitment` (S)
//! is the highest position that a surviving header or frame claims was synced. Bytes below a
//! commitment were durable, so a hole there is corruption, whatever it looks like. No surviving
//! evidence claims that bytes above it were synced. Power cuts and concurrent writers leave holes
//! there.

use crate::lsn::Lsn;

/// The evidence of a scan about the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The first position without a valid unit.
    pub(crate) end: Lsn,
    /// The highest synced position that intact bytes claim.
    pub(crate) commitment: Lsn,
    /// Set if all bytes from `end` are zero, or there are none.
    pub(crate) blank_from_end: bool,
    /// The number of intact frames past `end`.
    pub(crate) valid_after_count: u64,
    /// Set if the last valid unit before `end` is a clean close.
    pub(crate) closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Closed after everything was synced. The log is continued in place.
    CleanClose,
    /// Not closed; ends in zeros or with the file.
    CleanEnd,
    /// Unsynced writes that reached the device partly or out of order.
    TornTail { valid_after_count: u64 },
    /// Durable bytes are damaged.
    Corrupt,
}

pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let Evidence { end, commitment, blank_from_end, valid_after_count, closed } = *evidence;
    if end < commitment {
        return Verdict::Corrupt;
    }
    match (blank_from_end, valid_after_count) {
        (true, 0) if closed => Verdict::CleanClose,
        (true, 0) => Verdict::CleanEnd,
        (_, valid_after_count) => Verdict::TornTail { valid_after_count },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/DURABILITY.md over every input: each input matches exactly one row.
    #[test]
    fn every_input_meets_exactly_one_row() {
        type Row = (&'static str, fn(&Evidence) -> bool, fn(&Verdict) -> bool);
        let rows: [Row; 5] = [
            ("X < S", |e| e.end < e.commitment, |v| *v == Verdict::Corrupt),
            (
                "X >= S, zeros, last is a close",
                |e| e.end >= e.commitment && e.is_blank() && e.closed,
                |v| *v == Verdict::CleanClose,
            ),
            (
                "X >= S, zeros",
                |e| e.end >= e.commitment && e.is_blank() && !e.closed,
                |v| *v == Verdict::CleanEnd,
            ),
            (
                "X >= S, invalid bytes, nothing valid after",
                |e| e.end >= e.commitment && !e.blank_from_end && e.valid_after_count == 0,
                |v| *v == Verdict::TornTail { valid_after_count: 0 },
            ),
            (
                "X >= S, valid frames after",
                |e| e.end >= e.commitment && e.valid_after_count > 0,
                |v| matches!(v, Verdict::TornTail { valid_after_count: 1.. }),
            ),
        ];
        for bits in 0..96u32 {
            let evidence = Evidence {
                end: Lsn::new(64),
                commitment: Lsn::new([0, 64, 128][bits as usize % 3]),
                blank_from_end: bits / 3 % 2 == 1,
                valid_after_count: u64::from(bits / 6 % 4),
                closed: bits / 24 % 2 == 1,
            };
            let met: Vec<_> = rows.iter().filter(|row| row.1(&evidence)).collect();
            assert_eq!(met.len(), 1, "{evidence:?}");
            let (name, _, expected) = met[0];
            assert!(expected(&judge(&evidence)), "{name}: {evidence:?}");
        }
    }

    impl Evidence {
        fn is_blank(&self) -> bool {
            self.blank_from_end && self.valid_after_count == 0
        }
    }
}
