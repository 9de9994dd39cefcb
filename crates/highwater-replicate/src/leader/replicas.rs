//! [`Replicas`]: the handle of a leader.

use std::{fmt, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use highwater::{Error as LogError, Lsn, Payload, Slot, Ticket, Wal, shipping::Source};
use tokio::time::timeout;

use crate::{
    error::{Error, Result},
    leader::peers::Peers,
    options::Options,
};

/// The state of a replica, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its name.
    pub name: String,
    /// True while a connection lives.
    pub is_connected: bool,
    /// The operating system of the replica has everything below.
    pub written: Lsn,
    /// Everything below survives a loss of power of the replica.
    pub synced: Lsn,
    /// The bytes between that position and the synced mark of the log.
    pub lag_bytes: u64,
    /// True if the log was truncated past the replica, which needs a new copy.
    pub is_lost: bool,
}

pub(crate) struct Inner {
    pub(crate) wal: Wal,
    pub(crate) source: Source,
    pub(crate) options: Options,
    pub(crate) peers: Peers,
}

/// The replicas of an open log, which this node leads.
///
/// A handle of the log, as [`Wal`] is: it keeps the log open. [`serve`](Replicas::serve) runs one
/// connection. See [`Replica`](crate::Replica) for an example.
#[derive(Clone)]
pub struct Replicas {
    pub(crate) inner: Arc<Inner>,
}

impl Replicas {
    /// Leads the replicas of this log. A log has one `Replicas` and its clones.
    ///
    /// Replicas that the log has slots for are listed at once, with an empty mark.
    #[must_use]
    pub fn new(wal: &Wal, options: Options) -> Self {
        let source = Source::new(wal);
        let peers = Peers::new(source.clone());
        let names = wal.slots().into_iter();
        for name in names.filter_map(|slot| Some(slot.name.strip_prefix(SLOT_PREFIX)?.to_owned())) {
            peers.state().peers.entry(name).or_default();
        }
        Replicas { inner: Arc::new(Inner { wal: wal.clone(), source, options, peers }) }
    }

    /// Returns the log.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.inner.wal
    }

    /// Returns the position below which at least `k` replicas have everything on stable storage.
    /// Zero if there are fewer replicas.
    #[must_use]
    pub fn mark(&self, k: usize) -> Lsn {
        self.inner.peers.mark(k).min(self.inner.wal.watermarks().reserved)
    }

    /// Lists the replicas, by name.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let synced = self.inner.wal.watermarks().synced;
        let first = self.inner.wal.watermarks().first;
        let state = self.inner.peers.state();
        let peers = state.peers.iter().map(|(name, peer)| PeerInfo {
            name: name.clone(),
            is_connected: peer.is_connected,
            written: peer.written,
            synced: peer.synced,
            lag_bytes: synced.as_u64().saturating_sub(peer.synced.as_u64()),
            is_lost: peer.slot.as_ref().is_some_and(|slot| slot.position() < first),
        });
        peers.collect()
    }

    /// Resolves when at least `k` replicas have the record of this ticket on stable storage, and
    /// this node, too. Syncs the record.
    ///
    /// # Errors
    ///
    /// - [`Error::Log`]: those of [`Ticket::synced`]. If the log is closed or poisoned during the
    ///   wait, the call fails within one heartbeat.
    /// - [`Error::Fenced`] if a replica has promised a higher line. The record may be on replicas.
    /// - [`Error::Truncated`] if the end of the log was truncated.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only ends the wait.
    pub async fn replicated(&self, ticket: &Ticket, k: usize) -> Result<()> {
        let epoch = self.inner.source.epoch();
        ticket.synced().await?;
        // The last byte of the unit.
        self.above(Lsn::new(ticket.end().as_u64().saturating_sub(1)), epoch, k).await
    }

    /// Appends a record, and resolves when this node and `k` replicas have it on stable storage.
    ///
    /// If fewer replicas are connected, it waits for them: put a timeout around it if the caller
    /// can't. After a timeout the record stays in the log, and may reach replicas later.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append`] and [`Replicas::replicated`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append_and_replicate<'a>(
        &self,
        payload: impl Into<Payload<'a>>,
        k: usize,
    ) -> Result<Lsn> {
        let ticket = self.inner.wal.enqueue(payload).await?;
        self.replicated(&ticket, k).await?;
        Ok(ticket.lsn())
    }

    /// Forgets a replica that never returns: removes its slot, and it no longer counts.
    ///
    /// Its connection ends. A replica that connects later is new.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] if the slot can't be removed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, call it again.
    pub async fn forget(&self, name: &str) -> Result<()> {
        let peer = self.inner.peers.state().peers.remove(name);
        if let Some(peer) = &peer {
            peer.replaced.notify_one();
        }
        let slot = match peer.and_then(|peer| peer.slot) {
            Some(slot) => slot,
            None => self.inner.wal.slot(&slot_name(name)).await?,
        };
        Ok(slot.remove().await?)
    }

    /// Waits until `k` replicas have everything up to and including `lsn`.
    async fn above(&self, lsn: Lsn, epoch: u64, k: usize) -> Result<()> {
        if k == 0 {
            return Ok(());
        }
        let mut waiter = Waiting { inner: &self.inner, k, lsn, id: None };
        loop {
            let reached = poll_fn(|context| {
                let reached = self.inner.peers.poll_above(k, lsn, &mut waiter.id, context.waker());
                if let Some(to) = self.inner.source.cut_since(epoch).filter(|to| *to <= lsn) {
                    return Poll::Ready(Err(Error::Truncated { to }));
                }
                reached.map_err(|promised| Error::Fenced { promised })
            });
            // No report announces a truncation, a close or a failure of the log.
            match timeout(self.inner.options.heartbeat, reached).await {
                Ok(ended) => return ended,
                Err(_) => self.check_log().await?,
            }
        }
    }

    /// Fails if the log is closed or poisoned.
    async fn check_log(&self) -> Result<()> {
        // Pending while the log lives, because nothing is at that position yet.
        let next = self.inner.wal.wait_synced(self.inner.source.synced());
        match timeout(Duration::ZERO, next).await {
            Ok(Err(error @ (LogError::Closed { .. } | LogError::Poisoned { .. }))) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }
}

/// Removes the waiter of a dropped future.
struct Waiting<'a> {
    inner: &'a Inner,
    k: usize,
    lsn: Lsn,
    id: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.inner.peers.forget(self.k, self.lsn, id);
        }
    }
}

const SLOT_PREFIX: &str = "replica:";

fn slot_name(name: &str) -> String {
    format!("{SLOT_PREFIX}{name}")
}

impl Inner {
    /// Returns whether a segment begins at `lsn`.
    pub(crate) fn begins_segment(&self, lsn: Lsn) -> bool {
        self.source.place(lsn).is_ok_and(|place| place.segment.base == lsn)
    }

    /// Returns the beginning of the segment that ends at `end`, or `end` if it was removed.
    fn segment_before(&self, end: Lsn) -> Lsn {
        let last = Lsn::new(end.as_u64().saturating_sub(1));
        self.source.place(last).map_or(end, |place| place.segment.base)
    }

    /// Opens the slot of a replica that continues at `at`.
    ///
    /// A slot that is above `at` belongs to a copy that was lost. It is made again.
    pub(crate) async fn open_slot(&self, name: &str, at: Lsn) -> Result<Slot> {
        let first = self.wal.watermarks().first;
        let at = if self.begins_segment(at) { self.segment_before(at) } else { at };
        let name = slot_name(name);
        let mut slot = self.wal.slot_at(&name, at.max(first)).await;
        if let Ok(found) = slot.as_ref().map(Slot::position) {
            if found > at.max(first) || found < first {
                slot?.remove().await?;
                slot = self.wal.slot_at(&name, at.max(first)).await;
            }
        }
        let slot = slot?;
        slot.keep_at_most(self.options.keep_bytes_max)?;
        Ok(slot)
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("peers", &self.peers()).finish_non_exhaustive()
    }
}
