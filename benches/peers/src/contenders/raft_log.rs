//! raft-log over chunked-wal: its single writer behind a mutex, which is not held during a flush.

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use raft_log::{Config, RaftLog, Types, api::raft_log_writer::RaftLogWriter};

use crate::{
    log::{Log, Replayed, Writer},
    work::Assignment,
};

/// With `WAIT` a flush first waits 1 ms for more records, which is its default.
pub struct Raft<const WAIT: bool>(Mutex<Inner>);

struct Inner {
    log: RaftLog<Bytes>,
    next: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bytes;

impl Types for Bytes {
    type LogId = (u64, u64);
    type LogPayload = Vec<u8>;
    type Vote = (u64, u64);
    type Callback = mpsc::SyncSender<io::Result<()>>;
    type UserData = String;

    fn log_index(id: &(u64, u64)) -> u64 {
        id.1
    }

    fn payload_size(payload: &Vec<u8>) -> u64 {
        payload.len() as u64
    }
}

fn open<const WAIT: bool>(assignment: &Assignment) -> RaftLog<Bytes> {
    let mut config = Config::new(assignment.directory.to_str().unwrap());
    if !WAIT {
        config.wal.flush_batch_wait = Some(Duration::ZERO);
    }
    RaftLog::open(Arc::new(config)).unwrap()
}

impl<const WAIT: bool> Raft<WAIT> {
    fn write<'a>(&self, records: impl Iterator<Item = &'a [u8]>, sync: bool) {
        let (done, finished) = mpsc::sync_channel(1);
        self.begin(records, sync, Some(done));
        finished.recv().unwrap().unwrap();
    }

    fn begin<'a>(
        &self,
        records: impl Iterator<Item = &'a [u8]>,
        sync: bool,
        done: Option<mpsc::SyncSender<io::Result<()>>>,
    ) {
        let mut inner = self.0.lock().unwrap();
        let first = inner.next;
        let entries: Vec<_> =
            (first..).zip(records).map(|(at, record)| ((1, at), record.to_vec())).collect();
        inner.next += entries.len() as u64;
        if !entries.is_empty() {
            let _ = inner.log.append(entries).unwrap();
        }
        inner.log.flush(sync, done).unwrap();
    }
}

impl<const WAIT: bool> Log for Raft<WAIT> {
    type Writer<'a> = &'a Raft<WAIT>;

    fn open(assignment: &Assignment) -> Self {
        let log = open::<WAIT>(assignment);
        let next = log.log_state().last().map_or(0, |last| last.1 + 1);
        Raft(Mutex::new(Inner { log, next }))
    }

    fn writer(&self, _lane: usize) -> &Raft<WAIT> {
        self
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        // Opening reads all records, and the scan reads those outside its cache a second time.
        let begun = Instant::now();
        let log = open::<WAIT>(assignment);
        let end = log.log_state().last().map_or(0, |last| last.1 + 1);
        for entry in log.read(0, end) {
            each(&entry.unwrap().1);
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

impl<const WAIT: bool> Writer for &Raft<WAIT> {
    fn append(&mut self, record: &[u8]) {
        self.write(std::iter::once(record), false);
    }

    fn commit(&mut self, record: &[u8]) {
        self.write(std::iter::once(record), true);
    }

    fn enqueue(&mut self, record: &[u8]) {
        self.begin(std::iter::once(record), false, None);
    }

    fn drain(&mut self) {
        // It completes requests in order.
        self.write(std::iter::empty(), false);
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        self.write(records.iter().map(Vec::as_slice), sync);
    }
}
