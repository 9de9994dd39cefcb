//! The interfaces of a log under test: [`Log`] if it blocks, [`AsyncLog`] if it is async.

use std::future::Future;

use crate::work::{Assignment, THREADS_MAX, Work};

/// A log that blocks; threads use it.
pub trait Log: Send + Sync + Sized + 'static {
    /// True if one thread does the work of all tasks, with one record per task in each write. The
    /// floors do so.
    const SINGLE_THREAD: bool = false;
    type Writer<'a>: Writer;

    fn open(assignment: &Assignment) -> Self;
    fn writer(&self, lane: usize) -> Self::Writer<'_>;
    /// Reads every record in the directory, with a warm page cache. The time includes all steps
    /// that the log's interface requires for reading.
    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed;
    /// Closes the log as its documentation recommends.
    fn close(self) {}
}

/// The handle through which one thread writes to a log.
pub trait Writer {
    fn append(&mut self, record: &[u8]);
    fn commit(&mut self, record: &[u8]);
    /// Appends without waiting for the write; `drain` waits for all such appends.
    fn enqueue(&mut self, record: &[u8]) {
        self.append(record);
    }
    /// Writes all records as one unit, durable if `sync`.
    fn batch(&mut self, records: &[Vec<u8>], sync: bool);
    /// Waits until all enqueued records are written.
    fn drain(&mut self) {}
    /// Drops the records before the position that [`Marks`](crate::churn::Marks) returns. Does
    /// nothing if the log drops records itself.
    fn truncate(&mut self) {}
}

/// An async log; tasks use it. Its handle is cheap to clone.
pub trait AsyncLog: Clone + Send + Sync + 'static {
    type Ticket: Send;

    fn open(assignment: &Assignment) -> impl Future<Output = Self> + Send;
    fn append(&self, record: &[u8]) -> impl Future<Output = ()> + Send;
    fn commit(&self, record: &[u8]) -> impl Future<Output = ()> + Send;
    /// Appends without waiting for the write.
    fn enqueue(&self, record: &[u8]) -> impl Future<Output = Self::Ticket> + Send;
    /// Waits until an enqueued record, and all records before it, are written.
    fn drain(ticket: Self::Ticket) -> impl Future<Output = ()> + Send;
    fn batch(&self, records: &[Vec<u8>]) -> impl Future<Output = ()> + Send;
    fn replay(
        assignment: &Assignment,
        each: &mut (dyn FnMut(&[u8]) + Send),
    ) -> impl Future<Output = Replayed> + Send;
    fn close(self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The time that reading took. The caller counts the records.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    pub seconds: f64,
}

/// Returns the number of threads that do a work on a log.
pub fn thread_count<L: Log>(work: &Work) -> usize {
    if L::SINGLE_THREAD { 1 } else { work.tasks.min(THREADS_MAX) }
}

/// Returns a remark for the tables if the threads are fewer than the work's tasks.
pub fn thread_note<L: Log>(work: &Work) -> Option<String> {
    match thread_count::<L>(work) {
        count if L::SINGLE_THREAD && work.tasks > 1 => {
            Some(format!("{count} thread writes {} records at a time", work.tasks))
        }
        count if count < work.tasks => Some(format!("{count} threads")),
        _ => None,
    }
}
