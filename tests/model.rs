//! Random operations on a log with tiny segments. The model is a vector of records.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

use std::collections::BTreeMap;
use std::{ops::Bound, time::Duration};

use futures::TryStreamExt;
use highwater::{
    Error, InlineSyncs, Lsn, Wal,
    simulation::{self, Disk, Op, Simulation},
    storage::{MemoryStorage, Storage},
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Append(Bytes),
    AppendAndSync(Bytes),
    Batch(Vec<Bytes>),
    Enqueue(Bytes),
    TryEnqueue(Bytes),
    Sync,
    SyncTo(prop::sample::Index),
    Read(prop::sample::Index),
    ReadBetween(u64),
    Replay(Bound<prop::sample::Index>, Bound<prop::sample::Index>),
    TruncateBefore(prop::sample::Index),
    TruncateAfter(Option<prop::sample::Index>),
    /// Moves a slot to the beginning of a record's unit, and perhaps waits.
    MoveSlot(u8, prop::sample::Index, bool),
    RemoveSlot(u8),
    CloseAndReopen,
    DropAndReopen,
}

/// A payload: a length and a byte value. Short when it is printed in a failed case.
#[derive(Clone, Copy, Debug)]
struct Bytes(usize, u8);

impl Bytes {
    fn get(self) -> Vec<u8> {
        vec![self.1; self.0]
    }
}

fn payload() -> impl Strategy<Value = Bytes> {
    let bytes = prop_oneof![8 => 0..300usize, 2 => 900..3000usize, 1 => 4000..20_000usize];
    (bytes, any::<u8>()).prop_map(|(bytes, fill)| Bytes(bytes, fill))
}

fn bound() -> impl Strategy<Value = Bound<prop::sample::Index>> {
    prop_oneof![
        Just(Bound::Unbounded),
        any::<prop::sample::Index>().prop_map(Bound::Included),
        any::<prop::sample::Index>().prop_map(Bound::Excluded),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    prop_oneof![
        4 => payload().prop_map(Op::Append),
        3 => payload().prop_map(Op::AppendAndSync),
        3 => prop::collection::vec(payload(), 0..5).prop_map(Op::Batch),
        3 => payload().prop_map(Op::Enqueue),
        2 => payload().prop_map(Op::TryEnqueue),
        2 => Just(Op::Sync),
        1 => any::<prop::sample::Index>().prop_map(Op::SyncTo),
        2 => any::<prop::sample::Index>().prop_map(Op::Read),
        1 => (0..40_000u64).prop_map(Op::ReadBetween),
        2 => (bound(), bound()).prop_map(|(from, to)| Op::Replay(from, to)),
        1 => any::<prop::sample::Index>().prop_map(Op::TruncateBefore),
        1 => proptest::option::weighted(0.9, any::<prop::sample::Index>()).prop_map(Op::TruncateAfter),
        3 => (0..3u8, any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(slot, to, waits)| Op::MoveSlot(slot, to, waits)),
        1 => (0..3u8).prop_map(Op::RemoveSlot),
        1 => Just(Op::CloseAndReopen),
        1 => Just(Op::DropAndReopen),
    ]
}

struct Model<S> {
    storage: S,
    /// Whether jobs run beside the calls.
    is_simulated: bool,
    inline_bytes: u64,
    wal: Wal,
    records: Vec<(Lsn, Vec<u8>)>,
    /// For each record, the LSN of its batch, or its own LSN if it is in none.
    units: Vec<Lsn>,
    /// The end of the last record's frame.
    end: u64,
    /// Closed, and not appended to since then.
    is_clean: bool,
    /// The position of each slot, and the durable part of it.
    slots: BTreeMap<String, (Lsn, Lsn)>,
}

async fn open<S: Storage + Clone>(storage: &S, inline_bytes: u64) -> Wal {
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let options = options.recycle_segments(2).inline_writes(inline_bytes);
    let options = options.inline_syncs(if inline_bytes % 2 == 1 {
        InlineSyncs::Always
    } else {
        InlineSyncs::default()
    });
    loop {
        match options.clone().open_with(storage.clone()).await {
            // In a simulation the last job may still be running.
            Err(Error::Locked { .. }) => simulation::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

fn frame_bytes(payload: &[u8]) -> u64 {
    16 + (payload.len() as u64).next_multiple_of(8)
}

impl<S: Storage + Clone> Model<S> {
    fn push(&mut self, lsn: Lsn, payload: Vec<u8>) {
        assert!(lsn.as_u64() >= self.end, "{lsn} is before the end {}", self.end);
        self.end = lsn.as_u64() + frame_bytes(&payload);
        self.records.push((lsn, payload));
        self.units.push(lsn);
        self.is_clean = false;
    }

    fn at(&self, index: prop::sample::Index) -> Option<&(Lsn, Vec<u8>)> {
        (!self.records.is_empty()).then(|| index.get(&self.records))
    }

    async fn append(&mut self, operation: Operation) -> highwater::Result<()> {
        match operation {
            Operation::Append(payload) => {
                let payload = payload.get();
                let lsn = self.wal.append(&payload).await?;
                assert!(self.wal.watermarks().written > lsn);
                self.push(lsn, payload);
            }
            Operation::AppendAndSync(payload) => {
                let payload = payload.get();
                let lsn = self.wal.append_and_sync(&payload).await?;
                assert!(self.wal.watermarks().synced > lsn);
                self.push(lsn, payload);
            }
            Operation::Batch(payloads) => {
                let payloads: Vec<_> = payloads.into_iter().map(Bytes::get).collect();
                let range = self.wal.append_batch(&payloads).await?;
                let mut at = range.start;
                for payload in payloads {
                    let next = Lsn::new(at.as_u64() + frame_bytes(&payload));
                    self.push(at, payload);
                    *self.units.last_mut().unwrap() = range.start;
                    at = next;
                }
                assert_eq!(at, range.end);
            }
            Operation::Enqueue(payload) => {
                let payload = payload.get();
                let ticket = self.wal.enqueue(&payload).await?;
                ticket.written().await?;
                self.push(ticket.lsn(), payload);
            }
            Operation::TryEnqueue(payload) => match self.wal.try_enqueue(payload.get()) {
                Ok(ticket) => {
                    ticket.written().await?;
                    self.push(ticket.lsn(), payload.get());
                }
                // On nonblocking storage `Full` means that the record exceeds the ring, or that the
                // next segment is not prepared yet.
                Err(Error::Full) => {}
                Err(error) => return Err(error),
            },
            _ => unreachable!("not an append"),
        }
        Ok(())
    }

    async fn apply(&mut self, operation: Operation) -> highwater::Result<()> {
        match operation {
            Operation::Sync => {
                let synced = self.wal.sync().await?;
                assert!(synced.as_u64() >= self.end && self.wal.watermarks().synced >= synced);
            }
            Operation::SyncTo(index) => {
                if let Some((lsn, _)) = self.at(index) {
                    self.wal.sync_to(*lsn).await?;
                    assert!(self.wal.watermarks().synced > *lsn);
                }
            }
            Operation::Read(index) => {
                if let Some((lsn, payload)) = self.at(index) {
                    let record = self.wal.read(*lsn).await?;
                    assert_eq!((record.lsn, &record.payload[..]), (*lsn, &payload[..]));
                }
            }
            Operation::ReadBetween(lsn) => {
                let lsn = Lsn::new(lsn);
                if self.records.binary_search_by_key(&lsn, |record| record.0).is_err() {
                    let refused = self.wal.read(lsn).await;
                    assert!(
                        matches!(
                            refused,
                            Err(Error::NotABoundary { .. }
                                | Error::BelowFirst { .. }
                                | Error::AboveEnd { .. })
                        ),
                        "{lsn}: {refused:?}"
                    );
                }
            }
            Operation::Replay(from, to) => self.replay(from, to).await?,
            Operation::TruncateBefore(index) => self.truncate_before(index).await?,
            Operation::TruncateAfter(index) => self.truncate_after(index).await?,
            Operation::MoveSlot(slot, to, waits) => self.move_slot(slot, to, waits).await?,
            Operation::RemoveSlot(slot) => {
                let name = format!("slot {slot}");
                if self.slots.remove(&name).is_some() {
                    self.wal.slot(&name).await?.remove().await?;
                    self.is_clean = false;
                }
            }
            Operation::CloseAndReopen => {
                self.wal.close().await?;
                self.slots.values_mut().for_each(|(position, durable)| *durable = *position);
                self.is_clean = true;
                self.reopen().await;
            }
            Operation::DropAndReopen => self.reopen().await,
            append => self.append(append).await?,
        }
        Ok(())
    }

    async fn truncate_before(&mut self, index: prop::sample::Index) -> highwater::Result<()> {
        let Some((lsn, _)) = self.at(index).cloned() else { return Ok(()) };
        let place = self.records.partition_point(|record| record.0 < lsn);
        let first = self.wal.watermarks().first;
        let begins = match self.wal.truncate_before(lsn).await {
            Err(Error::NotABoundary { .. }) if self.units[place] != lsn => return Ok(()),
            result => result?,
        };
        assert!(self.units[place] == lsn || lsn <= first, "{lsn} is within a batch");
        self.is_clean &= self.slots.values().all(|(position, durable)| position == durable);
        self.slots.values_mut().for_each(|(position, durable)| *durable = *position);
        let lowest = self.slots.values().map(|(position, _)| *position).min();
        assert_eq!(begins, lowest.map_or(lsn, |lowest| lowest.min(lsn)).max(first));
        let place = self.records.partition_point(|record| record.0 < begins);
        self.records.drain(..place);
        self.units.drain(..place);
        self.is_clean &= self.wal.watermarks().first == first;
        Ok(())
    }

    async fn truncate_after(
        &mut self,
        index: Option<prop::sample::Index>,
    ) -> highwater::Result<()> {
        let last = match index {
            Some(index) => match self.at(index) {
                Some((lsn, _)) => Some(*lsn),
                None => return Ok(()),
            },
            None => None,
        };
        let kept = last.map_or(0, |last| self.records.partition_point(|record| record.0 <= last));
        let before = self.wal.watermarks().reserved;
        let splits = kept > 0 && self.units.get(kept) == Some(&self.units[kept - 1]);
        let end = match self.wal.truncate_after(last).await {
            Err(Error::NotABoundary { .. }) if splits => return Ok(()),
            result => result?,
        };
        assert!(!splits, "{last:?} is within a batch");
        self.records.truncate(kept);
        self.units.truncate(kept);
        if let Some((lsn, payload)) = self.records.last() {
            assert_eq!(end.as_u64(), lsn.as_u64() + frame_bytes(payload));
        }
        self.end = end.as_u64();
        for (position, durable) in self.slots.values_mut() {
            *position = end.min(*position);
            *durable = if self.wal.watermarks().reserved == before { *durable } else { *position };
        }
        self.is_clean &= self.wal.watermarks().reserved == before;
        Ok(())
    }

    async fn move_slot(
        &mut self,
        slot: u8,
        to: prop::sample::Index,
        waits: bool,
    ) -> highwater::Result<()> {
        let name = format!("slot {slot}");
        let to = self.at(to).map_or(self.wal.watermarks().first, |record| record.0);
        let place = self.records.partition_point(|record| record.0 < to);
        let to = self.units.get(place).copied().unwrap_or(to);
        let slot = self.wal.slot(&name).await?;
        let first = self.wal.watermarks().first;
        self.is_clean &= self.slots.contains_key(&name);
        let before = *self.slots.entry(name).or_insert((first, first));
        assert_eq!(slot.position(), before.0);
        let is_synced = to <= self.wal.watermarks().synced;
        let moved = if waits { slot.advance_and_sync(to).await } else { slot.advance(to) };
        match moved {
            Err(Error::SlotAhead { .. }) if !is_synced => return Ok(()),
            moved => moved?,
        }
        let position = before.0.max(to);
        self.is_clean &= !waits || position == before.1;
        let durable = if waits { position } else { before.1 };
        self.slots.insert(slot.name().to_owned(), (position, durable));
        Ok(())
    }

    fn check_slots(&mut self) {
        let found = self.wal.slots();
        assert_eq!(found.len(), self.slots.len(), "{found:?}");
        for slot in found {
            let (position, durable) = self.slots[&slot.name];
            let range = durable..=position;
            assert!(range.contains(&slot.position), "{slot:?} is not at {range:?}");
            assert!(!slot.is_lost);
            self.slots.insert(slot.name, (slot.position, slot.position));
        }
    }

    async fn reopen(&mut self) {
        // Replaces the last handle first, because the lock is free only after its drop.
        let other = MemoryStorage::new();
        self.wal = open(&other, 0).await;
        self.wal = open(&self.storage, self.inline_bytes).await;
        let report = self.wal.recovery();
        assert_eq!((report.was_closed, &report.cut), (self.is_clean, &None), "{report}");
        let marks = self.wal.watermarks();
        assert!(marks.synced >= report.end && report.end.as_u64() >= self.end, "{marks:?}");
        // In a simulation a job may have begun the log's own next records.
        let is_at_rest = marks.synced == marks.written && marks.written == marks.reserved;
        assert!(is_at_rest || self.is_simulated, "{marks:?}");
        self.check_slots();
    }

    async fn replay(
        &self,
        from: Bound<prop::sample::Index>,
        to: Bound<prop::sample::Index>,
    ) -> highwater::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let lsn = |bound: Bound<prop::sample::Index>| bound.map(|index| index.get(&self.records).0);
        let range = (lsn(from), lsn(to));
        let found: Vec<_> = self
            .wal
            .replay(range)
            .map_ok(|record| (record.lsn, record.payload.to_vec()))
            .try_collect()
            .await?;
        let within = |(lsn, _): &&(Lsn, Vec<u8>)| std::ops::RangeBounds::contains(&range, lsn);
        let expected: Vec<_> = self.records.iter().filter(within).cloned().collect();
        assert_eq!(found, expected);
        Ok(())
    }
}

async fn start<S: Storage + Clone>(storage: S, is_simulated: bool, inline_bytes: u64) -> Model<S> {
    let wal = open(&storage, inline_bytes).await;
    let (records, units) = (Vec::new(), Vec::new());
    let (end, is_clean, slots) = (0, false, BTreeMap::new());
    Model { storage, is_simulated, inline_bytes, wal, records, units, end, is_clean, slots }
}

async fn run(operations: Vec<Operation>) {
    let mut model = start(MemoryStorage::new(), false, 0).await;
    for operation in operations {
        let what = format!("{operation:?}");
        let applied = tokio::time::timeout(Duration::from_secs(2), model.apply(operation)).await;
        let applied = applied.unwrap_or_else(|_| panic!("{what} hangs, {:?}", model.wal));
        applied.unwrap();
    }
    finish(model).await;
}

/// Runs in a simulation, which detects hangs, with inline writes.
async fn run_in_place(operations: Vec<Operation>, disk: Disk, inline_bytes: u64) {
    let mut model = start(disk, true, inline_bytes).await;
    for operation in operations {
        model.apply(operation).await.unwrap();
    }
    finish(model).await;
}

async fn finish<S: Storage + Clone>(mut model: Model<S>) {
    model.replay(Bound::Unbounded, Bound::Unbounded).await.unwrap();
    model.wal.close().await.unwrap();
    model.is_clean = true;
    model.reopen().await;
    model.replay(Bound::Unbounded, Bound::Unbounded).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn log_equals_vector_of_records(operations in prop::collection::vec(operation(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(operations));
    }

    #[test]
    fn log_with_inline_writes_equals_vector(
        operations in prop::collection::vec(operation(), 1..40),
        seed in 0..1_000_000u64,
        inline_bytes in prop_oneof![Just(0u64), 1..5000u64],
    ) {
        let disk = Disk::new(seed);
        disk.set_nonblocking_writes(seed % 3 > 0);
        let on = || disk.faults().on(Op::WriteNonblocking);
        on().one_in(5).short(8 * (seed % 40) as usize);
        on().one_in(9).fail(std::io::ErrorKind::WouldBlock);
        Simulation::new(seed).run(run_in_place(operations, disk, inline_bytes));
    }
}
