//! Counts the records that are read back, and compares them with the acknowledged ones.

use crate::{
    log::Replayed,
    outcome::Outcome,
    records::stamp,
    usage::{Usage, peak_memory_kib},
    work::Assignment,
};

#[derive(Default)]
pub struct ReplayCounter {
    records: u64,
    bytes: u64,
    /// The sum of the first bytes, so that every record is really read from memory.
    sum: u64,
}

impl ReplayCounter {
    #[inline]
    pub fn record(&mut self, record: &[u8]) {
        self.records += 1;
        self.bytes += record.len() as u64;
        self.sum = self.sum.wrapping_add(u64::from(record.first().copied().unwrap_or(0)));
    }

    pub fn outcome(self, assignment: &Assignment, replayed: Replayed, before: Usage) -> Outcome {
        assert!(self.bytes >= assignment.work.bytes, "replay read only {} bytes", self.bytes);
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

/// Replays a log and returns the counts and the time.
pub fn measured(
    assignment: &Assignment,
    replay: impl FnOnce(&mut dyn FnMut(&[u8])) -> Replayed,
) -> Outcome {
    let mut counter = ReplayCounter::default();
    let before = Usage::now();
    let replayed = replay(&mut |record| counter.record(record));
    counter.outcome(assignment, replayed, before)
}

/// Checks that each task's records are read back in order, without duplicates, and at least the
/// `acknowledged` number of them.
///
/// # Panics
///
/// If a record is missing, repeated or out of order.
pub fn verify(acknowledged: &[u64], replay: impl FnOnce(&mut dyn FnMut(&[u8])) -> Replayed) {
    let mut seen = vec![0u64; acknowledged.len()];
    let mut wrong = None;
    replay(&mut |record| {
        let Some((lane, number)) = stamp(record) else {
            wrong = Some("a record is too short for its stamp".to_owned());
            return;
        };
        match seen.get_mut(lane as usize) {
            Some(next) if *next == u64::from(number) => *next += 1,
            _ => wrong = Some(format!("record {number} of task {lane} is out of order")),
        }
    });
    assert!(wrong.is_none(), "read back: {}", wrong.unwrap_or_default());
    for (lane, (seen, acknowledged)) in seen.iter().zip(acknowledged).enumerate() {
        assert!(seen >= acknowledged, "task {lane}: {seen} of {acknowledged} records were read");
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
    fn verify_all_records_in_order_passes() {
        check(&[2, 1], &[record(0, 0), record(1, 0), record(0, 1), record(0, 2)]);
    }

    #[test]
    #[should_panic(expected = "task 1: 0 of 1")]
    fn verify_missing_record_panics() {
        check(&[1, 1], &[record(0, 0)]);
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn verify_repeated_record_panics() {
        check(&[1], &[record(0, 0), record(0, 0)]);
    }
}
