//! [`Replica`]: the handle of a copy.

use std::{
    any::Any,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use highwater::{
    Lsn, Wal,
    shipping::{self, STANDBY},
    storage::{FileStorage, Locking, Storage},
};
use tokio::sync::watch;

use crate::{
    error::{Error, Result},
    marks::Marks,
    options::Options,
    shared::Shared,
    standby::{Disk, Marker, State, Store},
    wire::NAME_BYTES_MAX,
};

/// The state of a copy that its handles and its work share.
pub(crate) struct Inner {
    name: String,
    options: Options,
    storage: Arc<dyn Storage>,
    store: Mutex<Store>,
    marks: watch::Receiver<Marks>,
    /// Held until the copy is promoted or dropped.
    lock: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    /// One connection at a time.
    pub(crate) connection: tokio::sync::Mutex<()>,
}

impl Inner {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the directory: here if its calls never wait, else on the blocking pool. The
    /// work completes also if the future is dropped.
    pub(crate) async fn with_store<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.storage.is_nonblocking() {
            return work(&mut self.store());
        }
        let inner = Arc::clone(self);
        let started = tokio::task::spawn_blocking(move || work(&mut inner.store()));
        started.await.map_err(|_| Error::RuntimeGone)?
    }
}

/// A copy of a log that another node leads.
///
/// [`follow`](Replica::follow) keeps it equal to the leader's log over one connection. It is called
/// again for each connection. [`promote`](Replica::promote) makes it a log.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use highwater::{Wal, storage::MemoryStorage};
/// use highwater_replicate::{Options, Replica, Replicas, Unauthenticated};
///
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let replicas = Replicas::new(&wal, Options::default());
/// let replica = Replica::open_with("b", MemoryStorage::new(), Options::default()).await?;
///
/// // Any stream: TCP, TLS, a Unix socket, or two ends in memory.
/// let (ours, theirs) = tokio::io::duplex(1 << 16);
/// let (leader, copy) = (replicas.clone(), replica.clone());
/// let served = tokio::spawn(async move { leader.serve(ours, &Unauthenticated).await });
/// let followed = tokio::spawn(async move { copy.follow(theirs, &Unauthenticated).await });
///
/// let lsn = replicas.append_and_replicate("on two disks", 1).await?;
/// assert!(replica.marks().synced > lsn);
/// served.abort();
/// followed.abort();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

impl Replica {
    /// Opens the copy in `directory`, and creates it if the directory is empty or does not exist.
    ///
    /// The name identifies the replica to its leader, which keeps a slot `replica:NAME`. It has 1
    /// to 54 bytes.
    ///
    /// # Errors
    ///
    /// - [`Error::NotAStandby`] if the directory holds a log that may be appended to.
    /// - [`Error::Damaged`] if durable bytes of the newest segment are damaged.
    /// - [`Error::Log`] with [`highwater::Error::Locked`] if the copy is open elsewhere.
    /// - [`Error::Storage`], [`Error::Name`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the copy can be opened again when the running step has ended.
    pub async fn open(
        name: &str,
        directory: impl AsRef<Path>,
        options: Options,
    ) -> Result<Replica> {
        let directory = directory.as_ref().to_path_buf();
        let (name, made) = (name.to_owned(), options);
        let opened = tokio::task::spawn_blocking(move || {
            let storage: Arc<dyn Storage> = Arc::new(FileStorage::create(&directory)?);
            open_store(name, storage, made)
        });
        opened.await.map_err(|_| Error::RuntimeGone)?
    }

    /// As [`Replica::open`], for the copy in `storage`.
    ///
    /// # Errors
    ///
    /// As [`Replica::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Replica::open`].
    pub async fn open_with(name: &str, storage: impl Storage, options: Options) -> Result<Replica> {
        let name = name.to_owned();
        let storage: Arc<dyn Storage> = Arc::new(storage);
        if storage.is_nonblocking() {
            return open_store(name, storage, options);
        }
        let opened = tokio::task::spawn_blocking(move || open_store(name, storage, options));
        opened.await.map_err(|_| Error::RuntimeGone)?
    }

    /// Makes the log in `storage` a standby, so that it can follow another leader.
    ///
    /// Opens the log, closes it, and marks it. All its records stay. Use it for an old leader that
    /// joins a promoted one. If it has records that the new leader does not have,
    /// [`follow`](Replica::follow) returns [`Error::Diverged`].
    ///
    /// # Errors
    ///
    /// Those of opening and closing a log; [`Error::Storage`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, call it again.
    pub async fn demote(storage: impl Storage) -> Result<()> {
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let disk = Disk::new(Arc::clone(&storage));
        if Marker::read(&disk)?.is_some() {
            return Ok(());
        }
        let wal = Wal::options().open_with(Shared(Arc::clone(&storage))).await?;
        wal.close().await?;
        let _lock = lock(storage.as_ref())?;
        let judged = shipping::judge(storage.as_ref())?;
        let log_id = judged.as_ref().map(|judged| judged.log_id);
        let promise = judged.map_or(0, |judged| judged.epoch_max);
        Marker { log_id, promise, state: State::Whole }.write(&disk)
    }

    /// As [`Replica::demote`], for the log in `directory`.
    ///
    /// # Errors
    ///
    /// As [`Replica::demote`].
    ///
    /// # Cancel safety
    ///
    /// As [`Replica::demote`].
    pub async fn demote_directory(directory: impl AsRef<Path>) -> Result<()> {
        Replica::demote(FileStorage::create(directory.as_ref())?).await
    }

    /// Returns how far the copy is.
    #[must_use]
    pub fn marks(&self) -> Marks {
        *self.inner.marks.borrow()
    }

    /// Returns a receiver of the newest marks.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Marks> {
        self.inner.marks.clone()
    }

    /// Returns an epoch for a promotion: the next term above all that this copy has promised, with
    /// a random tag.
    ///
    /// # Errors
    ///
    /// [`Error::LowerEpoch`] if no term is left; [`Error::Storage`] without randomness.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call changes nothing.
    pub async fn next_epoch(&self) -> Result<u64> {
        let draw = |store: &mut Store| {
            let random = store.disk().storage().random();
            let random = random.map_err(|error| store.disk().failed("drawing", "a tag", error))?;
            let [a, b, c, d, e, f, g, h, ..] = random;
            let promised = store.marker().promise.max(store.epoch());
            let next = shipping::next_term(promised, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            next.ok_or(Error::LowerEpoch { epoch: promised, promised })
        };
        self.inner.with_store(draw).await
    }

    /// Promises to accept no leader of a lower line, which is the term and the tag of an epoch.
    /// Returns how far the copy is.
    ///
    /// Resolves when the promise is durable. A connection of an older leader ends with
    /// [`Error::Fenced`] before it acknowledges anything else. If `epoch` is promised already, the
    /// call has no effect.
    ///
    /// Before a promotion, promise its epoch on `f − k + 1` of `f` replicas, and promote the one
    /// with the highest [rank](Marks::rank). Then no record is lost that was acknowledged with `k`.
    ///
    /// # Errors
    ///
    /// - [`Error::LowerEpoch`] if the copy has promised a higher line.
    /// - [`Error::NotAStandby`] if the copy was promoted.
    /// - [`Error::Storage`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the promise may be made or not. Call it again.
    pub async fn promise(&self, epoch: u64) -> Result<Marks> {
        let marks = self.inner.marks.clone();
        let promise = move |store: &mut Store| {
            accept_epoch(store, epoch)?;
            Ok(*marks.borrow())
        };
        self.inner.with_store(promise).await
    }

    /// Makes the copy a log in `epoch`, with the default settings of a log.
    ///
    /// # Errors
    ///
    /// As [`Replica::promote_with`].
    ///
    /// # Cancel safety
    ///
    /// As [`Replica::promote_with`].
    pub async fn promote(self, epoch: u64) -> Result<Wal> {
        self.promote_with(epoch, Wal::options()).await
    }

    /// Makes the copy a log in `epoch`, which [`next_epoch`](Replica::next_epoch) of any replica
    /// returned.
    ///
    /// Read [`promise`](Replica::promise) first. All records of the copy stay, and the connection
    /// of the old leader ends. Other clones of the handle can't be used any more.
    ///
    /// # Errors
    ///
    /// - [`Error::LowerEpoch`], [`Error::Seeding`]: nothing was changed.
    /// - [`Error::NotAStandby`] if the copy was promoted or is empty.
    /// - [`Error::Log`]: those of opening a log.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the copy may be a log or a standby. Open it as a replica; if that
    /// fails with [`Error::NotAStandby`], it is a log.
    pub async fn promote_with(self, epoch: u64, options: highwater::Options) -> Result<Wal> {
        let prepare = move |store: &mut Store| {
            let is_empty = store.newest().is_none();
            match store.marker().state {
                State::Seeding { goal } if !is_empty => {
                    return Err(Error::Seeding { end: store.end(), goal });
                }
                _ if is_empty => {
                    let directory = store.disk().storage().location();
                    return Err(Error::NotAStandby { directory });
                }
                _ => {}
            }
            accept_epoch(store, epoch)?;
            store.close()
        };
        self.inner.with_store(prepare).await?;
        let storage = Arc::clone(&self.inner.storage);
        let lock = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(lock);
        let wal = options.promote_to(epoch).open_with(Shared(storage)).await?;
        // The mark of the new epoch, so that a quiet leader has something to ship: a replica counts
        // only when it has the leader's line.
        wal.sync().await?;
        Ok(wal)
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

/// Checks an epoch against the promise, and raises the promise durably. A promoted copy promises
/// nothing: its directory is a log, which no `STANDBY` may enter.
pub(crate) fn accept_epoch(store: &mut Store, epoch: u64) -> Result<()> {
    store.check_standby()?;
    let promised = store.marker().promise.max(store.epoch());
    if shipping::line_of(epoch) < shipping::line_of(promised) {
        return Err(Error::LowerEpoch { epoch, promised });
    }
    let promise = promised.max(epoch);
    store.set_marker(Marker { promise, ..*store.marker() })
}

fn lock(storage: &dyn Storage) -> Result<Box<dyn Any + Send + Sync>> {
    match storage.lock() {
        Ok(Locking::Held(lock)) => Ok(lock),
        Ok(Locking::Busy { owner }) => {
            Err(highwater::Error::Locked { path: storage.location(), owner }.into())
        }
        Err(source) => {
            let (directory, name) = (storage.location(), ".".to_owned());
            Err(Error::Storage { directory, operation: "locking", name, source })
        }
    }
}

/// Opens or creates a copy. Blocking.
fn open_store(name: String, storage: Arc<dyn Storage>, options: Options) -> Result<Replica> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::Name);
    }
    let disk = Disk::new(Arc::clone(&storage));
    let has_log = |names: &[String]| {
        let is_log =
            |name: &String| name != STANDBY && name != "LOCK" && name != shipping::STANDBY_NEW;
        names.iter().any(is_log)
    };
    let is_standby = disk.names()?.iter().any(|name| name == STANDBY);
    if !is_standby && has_log(&disk.names()?) {
        return Err(Error::NotAStandby { directory: storage.location() });
    }
    let lock = lock(storage.as_ref())?;
    let marker = match Marker::read(&disk)? {
        Some(marker) => marker,
        None => {
            let goal = Lsn::new(u64::MAX >> 2);
            let marker = Marker { log_id: None, promise: 0, state: State::Seeding { goal } };
            marker.write(&disk)?;
            marker
        }
    };
    let (sender, marks) = watch::channel(Marks::default());
    let store = Store::open(disk, options.clone(), marker, sender)?;
    Ok(Replica {
        inner: Arc::new(Inner {
            name,
            options,
            storage,
            store: Mutex::new(store),
            marks,
            lock: Mutex::new(Some(lock)),
            connection: tokio::sync::Mutex::new(()),
        }),
    })
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("name", &self.inner.name)
            .field("marks", &self.marks())
            .finish_non_exhaustive()
    }
}
