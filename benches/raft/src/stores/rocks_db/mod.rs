//! RocksDB with its defaults, embedded as its users do.
//!
//! An append writes a batch to RocksDB's log. The callback runs after a flush of that log on the
//! blocking pool.

mod library;

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::spawn_blocking;

use self::library::{Batch, Database};
use crate::types::{Medium, Types, Written};

// These keys sort before the keys of the entries.
const PURGED: &[u8] = b"a purged";
const VOTE: &[u8] = b"a vote";

/// Returns the key of an entry. Keys sort in the order of their indexes.
fn key(index: u64) -> [u8; 9] {
    let mut key = [b'l'; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

#[derive(Clone)]
pub(crate) struct RocksDbStore(Arc<RocksDbState>);

struct RocksDbState {
    database: Arc<Database>,
    sync_count: AtomicU64,
    bytes: AtomicU64,
}

fn encoded<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

impl RocksDbState {
    fn write(&self, batch: &Batch) -> io::Result<()> {
        self.bytes.fetch_add(batch.bytes(), Ordering::Relaxed);
        self.database.write(batch)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_count.fetch_add(1, Ordering::Relaxed);
        self.database.sync()
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let mut found = None;
        self.database.scan(key, |at, value| {
            found = (at == key).then(|| value.to_vec());
            false
        })?;
        found.map(|value| decoded(&value)).transpose()
    }
}

pub(crate) struct RocksDbMedium(RocksDbStore);

impl Medium for RocksDbMedium {
    type Store = RocksDbStore;
    type Options = ();

    async fn open(at: &Path, (): &()) -> io::Result<Self> {
        std::fs::create_dir_all(at)?;
        let (sync_count, bytes) = Default::default();
        let database = Database::open(at)?;
        Ok(RocksDbMedium(RocksDbStore(Arc::new(RocksDbState { database, sync_count, bytes }))))
    }

    fn store(&self) -> RocksDbStore {
        self.0.clone()
    }

    fn written(&self) -> Option<Written> {
        let RocksDbState { sync_count, bytes, .. } = &*self.0.0;
        let (sync_count, bytes) =
            (sync_count.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
        Some(Written { sync_count, bytes })
    }
}

impl RaftLogReader<Types> for RocksDbStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<EntryOf<Types>>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let mut entries: Vec<io::Result<EntryOf<Types>>> = Vec::new();
        self.0.database.scan(&key(from), |_, value| {
            let entry = decoded::<EntryOf<Types>>(value);
            let is_inside =
                entry.as_ref().map_or(true, |entry| range.contains(&entry.log_id.index));
            let is_good = entry.is_ok();
            if is_inside {
                entries.push(entry);
            }
            is_inside && is_good
        })?;
        entries.into_iter().collect()
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        self.0.get(VOTE)
    }
}

impl RaftLogStorage<Types> for RocksDbStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let purged: Option<LogIdOf<Types>> = self.0.get(PURGED)?;
        let last = self.0.database.last().filter(|(key, _)| key.starts_with(b"l"));
        let last = last.map(|(_, value)| decoded::<EntryOf<Types>>(&value)).transpose()?;
        let last_log_id = last.map(|entry| entry.log_id).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.put(VOTE, &encoded(vote)?);
        self.0.write(&batch)?;
        let state = Arc::clone(&self.0);
        spawn_blocking(move || state.sync()).await?
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::new();
        for entry in entries {
            batch.put(&key(entry.log_id.index), &encoded(&entry)?);
        }
        self.0.write(&batch)?;
        let state = Arc::clone(&self.0);
        spawn_blocking(move || callback.io_completed(state.sync()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.delete(&key(last.map_or(0, |id| id.index + 1)), b"m");
        self.0.write(&batch)
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.put(PURGED, &encoded(&upto)?);
        batch.delete(&key(0), &key(upto.index + 1));
        self.0.write(&batch)
    }
}
