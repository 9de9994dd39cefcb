//! Runs operations on a log, and compares it with a vector of records.
//!
//! Segments and ring are tiny, and a process may end after any change to a file.
#![no_main]

use std::sync::atomic::Ordering;

use arbitrary::Arbitrary;
use futures::TryStreamExt;
use highwater::{Error, Lsn, Ticket, Wal};
use highwater_fuzz::{
    opening::{now, options},
    repeatable::Repeatable,
    script::Payload,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Operation {
    Append(Payload),
    AppendAndSync(Payload),
    Batch(Vec<Payload>),
    Enqueue(Payload),
    TryEnqueue(Payload),
    /// A future that is dropped after its first poll.
    Dropped(Payload),
    Sync,
    SyncTo(u8),
    Wait(u8),
    Read(u8),
    Between(u16),
    Replay(u8, u8),
    Reopen,
    CloseAndReopen,
    /// A process that opens the log ends after this many changes.
    ReopenInPart(u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Small values refuse some payloads, or are even below a control record's size.
    record_bytes_max: u8,
    operations: Vec<Operation>,
}

struct Model {
    storage: Repeatable,
    wal: Option<Wal>,
    record_bytes_max: u64,
    records: Vec<(Lsn, Vec<u8>)>,
    tickets: Vec<Ticket>,
    end: u64,
    is_clean: bool,
    /// True if a process ended early since the log was last opened.
    has_ended_early: bool,
}

fn frame_bytes(payload: &[u8]) -> u64 {
    16 + (payload.len() as u64).next_multiple_of(8)
}

impl Model {
    fn wal(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }

    fn push(&mut self, lsn: Lsn, payload: Vec<u8>) {
        assert!(lsn.as_u64() >= self.end && lsn.as_u64() % 8 == 0, "{lsn}, end {}", self.end);
        self.end = lsn.as_u64() + frame_bytes(&payload);
        self.records.push((lsn, payload));
        self.is_clean = false;
    }

    /// Adds a record to the model, or checks that the log refused it for its size.
    fn appended(&mut self, payload: Vec<u8>, appended: highwater::Result<Lsn>) {
        let is_too_large = payload.len() as u64 > self.record_bytes_max;
        match appended {
            Ok(lsn) if !is_too_large => self.push(lsn, payload),
            Err(Error::RecordTooLarge { .. }) if is_too_large => {}
            other => panic!("{} bytes: {other:?}", payload.len()),
        }
    }

    fn append(&mut self, operation: &Operation) {
        match operation {
            Operation::Append(payload) => {
                let appended = now(self.wal().append(payload.bytes()));
                self.appended(payload.bytes(), appended);
                assert!(self.wal().watermarks().written.as_u64() >= self.end);
            }
            Operation::AppendAndSync(payload) => {
                let appended = now(self.wal().append_and_sync(payload.bytes()));
                let is_synced = appended.is_ok();
                self.appended(payload.bytes(), appended);
                let synced = self.wal().watermarks().synced.as_u64();
                assert!(!is_synced || synced >= self.end);
            }
            Operation::Batch(payloads) => self.batch(payloads),
            Operation::Enqueue(payload) => {
                let ticket = now(self.wal().enqueue(payload.bytes()));
                self.appended(
                    payload.bytes(),
                    ticket.as_ref().map(Ticket::lsn).map_err(Error::clone),
                );
                self.tickets.extend(ticket);
            }
            Operation::TryEnqueue(payload) => match self.wal().try_enqueue(payload.bytes()) {
                Err(Error::Full) => {}
                ticket => {
                    let lsn = ticket.as_ref().map(Ticket::lsn).map_err(Error::clone);
                    self.appended(payload.bytes(), lsn);
                    self.tickets.extend(ticket);
                }
            },
            _ => unreachable!("not an append"),
        }
    }

    fn batch(&mut self, payloads: &[Payload]) {
        let payloads: Vec<_> = payloads.iter().take(6).map(|payload| payload.bytes()).collect();
        let is_too_large = payloads.iter().any(|p| p.len() as u64 > self.record_bytes_max);
        match now(self.wal().append_batch(&payloads)) {
            Ok(range) => {
                assert!(!is_too_large);
                let mut at = range.start;
                for payload in payloads {
                    let next = Lsn::new(at.as_u64() + frame_bytes(&payload));
                    self.push(at, payload);
                    at = next;
                }
                assert_eq!(at, range.end);
            }
            Err(Error::RecordTooLarge { .. }) if is_too_large => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Checks that a dropped append leaves the whole record at the end, or nothing.
    fn dropped(&mut self, payload: Payload) {
        let payload = payload.bytes();
        let before = self.wal().watermarks().reserved;
        {
            let mut append = std::pin::pin!(self.wal().append(payload.clone()));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = append.as_mut().poll(&mut context);
        }
        if self.wal().watermarks().reserved > before {
            let found = now(self.wal().replay(before..).try_collect::<Vec<_>>()).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].payload, payload);
            self.push(found[0].lsn, payload);
        }
    }

    fn at(&self, which: u8) -> Option<&(Lsn, Vec<u8>)> {
        self.records.get(usize::from(which) % self.records.len().max(1))
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Dropped(payload) => self.dropped(*payload),
            Operation::Sync => {
                let synced = now(self.wal().sync()).unwrap();
                assert!(synced.as_u64() >= self.end && self.wal().watermarks().synced >= synced);
            }
            Operation::SyncTo(which) => {
                if let Some((lsn, _)) = self.at(*which) {
                    now(self.wal().sync_to(*lsn)).unwrap();
                    assert!(self.wal().watermarks().synced > *lsn);
                }
            }
            Operation::Wait(which) => {
                let ticket = self.tickets.get(usize::from(*which) % self.tickets.len().max(1));
                if let Some(ticket) = ticket {
                    now(ticket.written()).unwrap();
                    now(ticket.synced()).unwrap();
                }
            }
            Operation::Read(which) => {
                if let Some((lsn, payload)) = self.at(*which) {
                    let record = now(self.wal().read(*lsn)).unwrap();
                    assert_eq!((record.lsn, &record.payload[..]), (*lsn, &payload[..]));
                }
            }
            Operation::Between(at) => self.read_between(Lsn::new(u64::from(*at))),
            Operation::Replay(from, to) => self.replay(*from, *to),
            Operation::Reopen => self.reopen(),
            Operation::CloseAndReopen => {
                now(self.wal().close()).unwrap();
                self.is_clean = true;
                self.reopen();
            }
            Operation::ReopenInPart(changes) => self.reopen_in_part(*changes),
            append => self.append(append),
        }
    }

    fn read_between(&self, at: Lsn) {
        if self.records.binary_search_by_key(&at, |record| record.0).is_err() {
            let refused = now(self.wal().read(at));
            assert!(
                matches!(
                    refused,
                    Err(Error::NotABoundary { .. }
                        | Error::BelowFirst { .. }
                        | Error::AboveEnd { .. })
                ),
                "{at}: {refused:?}"
            );
        }
    }

    fn replay(&self, from: u8, to: u8) {
        let (Some((from, _)), Some((to, _))) = (self.at(from), self.at(to)) else { return };
        let found = now(self.wal().replay(*from..*to).try_collect::<Vec<_>>()).unwrap();
        let found: Vec<_> = found.into_iter().map(|r| (r.lsn, r.payload.to_vec())).collect();
        let expected = self.records.iter().filter(|(lsn, _)| from <= lsn && lsn < to);
        assert!(found.iter().eq(expected), "{from}..{to}");
    }

    fn options(&self) -> highwater::Options {
        options(self.record_bytes_max)
    }

    fn reopen(&mut self) {
        self.tickets.clear();
        self.wal = None;
        let wal = now(self.options().open_with(self.storage.clone())).unwrap();
        let report = wal.recovery();
        assert_eq!(report.was_closed, self.is_clean, "{report}");
        if let Some(cut) = &report.cut {
            // A frame at the ring's end takes two writes. A process that ends between them leaves a
            // part of a frame: of an unacknowledged record, or of a control record.
            assert!(self.has_ended_early && cut.lsn.as_u64() >= self.end, "{report}");
            assert_eq!(cut.valid_frame_count, 0, "{report}");
        }
        self.has_ended_early = false;
        let marks = wal.watermarks();
        assert!(marks.synced == marks.written && marks.written == marks.reserved, "{marks:?}");
        assert!(marks.synced.as_u64() >= self.end);
        self.wal = Some(wal);
        self.is_clean &= self.wal().watermarks().reserved.as_u64() >= self.end;
        let all = now(self.wal().replay(..).try_collect::<Vec<_>>()).unwrap();
        let all = all.into_iter().map(|record| (record.lsn, record.payload.to_vec()));
        assert!(all.eq(self.records.iter().cloned()), "the log has all records and no others");
    }

    /// Lets the opening process end early, and checks that the next one finds all records.
    fn reopen_in_part(&mut self, changes: u8) {
        self.tickets.clear();
        self.wal = None;
        self.storage.changes_left.store(u64::from(changes % 32), Ordering::Relaxed);
        drop(now(self.options().open_with(self.storage.clone())));
        self.storage.changes_left.store(u64::MAX, Ordering::Relaxed);
        self.has_ended_early = true;
        self.reopen();
    }
}

fuzz_target!(|input: Input| {
    let record_bytes_max = match input.record_bytes_max {
        small @ 1..16 => u64::from(small),
        16..64 => 300,
        _ => 1 << 20,
    };
    let storage = Repeatable::new(1);
    let wal = now(options(record_bytes_max).open_with(storage.clone())).unwrap();
    let mut model = Model {
        storage,
        wal: Some(wal),
        record_bytes_max,
        records: Vec::new(),
        tickets: Vec::new(),
        end: 0,
        is_clean: false,
        has_ended_early: false,
    };
    for operation in input.operations.iter().take(60) {
        model.apply(operation);
    }
    model.reopen();
});
