//! Counting what is read back, and holding it against what was acknowledged.

use crate::{
    contenders::Replayed,
    outcome::Outcome,
    records::stamp,
    usage::{Usage, peak_memory_kib},
    work::Assignment,
};

#[derive(Default)]
pub struct Counted {
    records: u64,
    bytes: u64,
    /// Touches what was read, so that nobody can hand over what it hasn't looked at.
    sum: u64,
}

impl Counted {
    #[inline]
    pub fn record(&mut self, record: &[u8]) {
        self.records += 1;
        self.bytes += record.len() as u64;
        self.sum = self.sum.wrapping_add(u64::from(record.first().copied().unwrap_or(0)));
    }

    pub fn outcome(self, assignment: &Assignment, replayed: Replayed, before: Usage) -> Outcome {
        assert!(self.bytes >= assignment.work.bytes, "replay found only {} bytes", self.bytes);
        std::hint::black_box(self.sum);
        Outcome {
            operations: self.records,
            bytes: self.bytes,
            seconds: replayed.seconds,
            usage: Usage::now().since(&before),
            peak_memory_kib: peak_memory_kib(),
            ..Outcome::default()
        }
    }
}

pub fn measured(
    assignment: &Assignment,
    replay: impl FnOnce(&mut dyn FnMut(&[u8])) -> Replayed,
) -> Outcome {
    let mut counted = Counted::default();
    let before = Usage::now();
    let replayed = replay(&mut |record| counted.record(record));
    counted.outcome(assignment, replayed, before)
}

/// Each task's records must all be there, in its order: `acknowledged` of each at least, and none
/// twice.
pub fn verify(acknowledged: &[u64], replay: impl FnOnce(&mut dyn FnMut(&[u8])) -> Replayed) {
    let mut seen = vec![0u64; acknowledged.len()];
    let mut wrong = None;
    replay(&mut |record| {
        let Some((lane, number)) = stamp(record) else {
            wrong = Some("a record too short".to_owned());
            return;
        };
        match seen.get_mut(lane as usize) {
            Some(next) if *next == u64::from(number) => *next += 1,
            _ => wrong = Some(format!("record {number} of task {lane} out of turn")),
        }
    });
    assert!(wrong.is_none(), "read back: {}", wrong.unwrap_or_default());
    for (lane, (seen, acknowledged)) in seen.iter().zip(acknowledged).enumerate() {
        assert!(seen >= acknowledged, "task {lane}: {seen} of {acknowledged} records came back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(lane: u32, number: u32) -> Vec<u8> {
        [number.to_le_bytes(), lane.to_le_bytes()].concat()
    }

    fn check(acknowledged: &[u64], records: &[Vec<u8>]) {
        verify(acknowledged, |each| {
            records.iter().for_each(|record| each(record));
            Replayed { seconds: 0.0 }
        });
    }

    #[test]
    fn all_in_turn_is_well() {
        check(&[2, 1], &[record(0, 0), record(1, 0), record(0, 1), record(0, 2)]);
    }

    #[test]
    #[should_panic(expected = "task 1: 0 of 1")]
    fn a_missing_record_is_found() {
        check(&[1, 1], &[record(0, 0)]);
    }

    #[test]
    #[should_panic(expected = "out of turn")]
    fn a_repeated_record_is_found() {
        check(&[1], &[record(0, 0), record(0, 0)]);
    }
}
