//! The slots of the consumers, and their handles, which all requests share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::StatusCode;
use highwater::{Error, Lsn, Slot, Wal};
use tokio::sync::{Mutex as AsyncMutex, OwnedRwLockReadGuard, RwLock};

use crate::refusal::Refusal;

/// The slot of a consumer; `None` once it is removed. A removal waits for requests that use it.
type Handle = Arc<RwLock<Option<Slot>>>;

const UNKNOWN: Refusal = Refusal::Request(StatusCode::NOT_FOUND, "no consumer has this name");

/// The consumers of the log.
pub(crate) struct Consumers {
    wal: Wal,
    /// The limit of what each slot keeps.
    bytes_max: Option<u64>,
    /// A slot has one handle at a time, so all requests share it.
    handles: Mutex<HashMap<String, Handle>>,
    /// Held while a slot is made or removed, so that two requests do not make the same one.
    change: AsyncMutex<()>,
}

impl Consumers {
    /// Opens the slots that the log has, and sets the limit of each.
    pub(crate) async fn open(wal: &Wal, bytes_max: Option<u64>) -> Result<Self, Error> {
        let mut handles = HashMap::new();
        for known in wal.slots() {
            let slot = wal.slot(&known.name).await?;
            // The server may have had another limit before.
            if known.keep_bytes_max != bytes_max {
                slot.keep_at_most(bytes_max)?;
            }
            handles.insert(known.name, Arc::new(RwLock::new(Some(slot))));
        }
        let (wal, handles) = (wal.clone(), Mutex::new(handles));
        Ok(Consumers { wal, bytes_max, handles, change: AsyncMutex::new(()) })
    }

    /// No code that can panic runs under this lock.
    fn handles(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the slot of a consumer. It is not removed before the guard is dropped.
    pub(crate) async fn slot(
        &self,
        name: &str,
    ) -> Result<OwnedRwLockReadGuard<Option<Slot>, Slot>, Refusal> {
        let handle = self.handles().get(name).map(Arc::clone);
        let slot = handle.ok_or(UNKNOWN)?.read_owned().await;
        OwnedRwLockReadGuard::try_map(slot, Option::as_ref).map_err(|_| UNKNOWN)
    }

    /// Returns the position of a consumer, and whether it was made now.
    pub(crate) async fn make(&self, name: &str, from: Option<Lsn>) -> Result<(Lsn, bool), Refusal> {
        let _change = self.change.lock().await;
        if let Ok(slot) = self.slot(name).await {
            return Ok((slot.position(), false));
        }
        let slot = match from {
            Some(from) => self.wal.slot_at(name, from).await?,
            None => self.wal.slot(name).await?,
        };
        if self.bytes_max.is_some() {
            slot.keep_at_most(self.bytes_max)?;
        }
        let position = slot.position();
        self.handles().insert(name.to_owned(), Arc::new(RwLock::new(Some(slot))));
        Ok((position, true))
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let _change = self.change.lock().await;
        let handle = self.handles().remove(name).ok_or(UNKNOWN)?;
        let slot = handle.write().await.take();
        Ok(slot.ok_or(UNKNOWN)?.remove().await?)
    }
}
