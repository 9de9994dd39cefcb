//! [`Peers`]: how far each replica is, the marks of the quorum, and the tasks that wait for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use highwater::{
    Lsn, Slot,
    shipping::{self, Source},
};
use tokio::sync::Notify;

use crate::wire::Report;

/// One replica.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) synced: Lsn,
    pub(crate) written: Lsn,
    /// The number of the newest connection. An older one ends.
    pub(crate) connection: u64,
    pub(crate) is_connected: bool,
    pub(crate) slot: Option<Slot>,
    /// Wakes the connection, so that it ends.
    pub(crate) replaced: Arc<Notify>,
}

/// A task that waits until the mark of `k` replicas has passed a position.
type WaitKey = (usize, Lsn, u64);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) peers: BTreeMap<String, Peer>,
    /// The epoch of the positions.
    epoch: u64,
    waiters: BTreeMap<WaitKey, Waker>,
    next_waiter: u64,
    /// The number of the newest connection of any replica.
    newest_connection: u64,
    /// The promise of a replica that is above this leader's line.
    pub(crate) fenced: Option<u64>,
}

/// The replicas of a leader.
pub(crate) struct Peers {
    source: Source,
    state: Mutex<State>,
}

impl Peers {
    pub(crate) fn new(source: Source) -> Self {
        let state = State { epoch: source.epoch(), ..State::default() };
        Peers { source, state: Mutex::new(state) }
    }

    /// Returns the state, after a truncation of the end has moved all marks down to the cut.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.source.epoch();
        if epoch != state.epoch {
            let cut = self.source.cut_since(state.epoch);
            for peer in state.peers.values_mut() {
                peer.synced = cut.map_or(peer.synced, |cut| peer.synced.min(cut));
                peer.written = cut.map_or(peer.written, |cut| peer.written.min(cut));
            }
            state.epoch = epoch;
        }
        state
    }

    /// Empties the mark of a known replica that has connected again. Its disk may be another one,
    /// so reports of older connections don't count from now on.
    pub(crate) fn greet(&self, name: &str) {
        let mut state = self.state();
        if state.peers.contains_key(name) {
            let _ = state.replace(name);
        }
    }

    /// Notes the marks that a connection of a replica has reported, and wakes the tasks that
    /// waited. The epoch is the newest of the replica. Reports of a replaced connection don't
    /// count.
    ///
    /// A replica counts only when it has a segment of the leader's line. Otherwise a record could
    /// be acknowledged that a later candidate cuts, whose line is newer and whose log is shorter.
    pub(crate) fn report(&self, (name, number): (&str, u64), report: Report) {
        let Report { epoch, written, synced } = report;
        let mut state = self.state();
        if shipping::line_of(epoch) != shipping::line_of(state.epoch) {
            return;
        }
        let cut = match epoch < state.epoch {
            true => self.source.cut_since(epoch),
            false => None,
        };
        let Some(peer) = state.current(name, number) else { return };
        let counted = |lsn: Lsn| cut.map_or(lsn, |cut| lsn.min(cut));
        peer.synced = peer.synced.max(counted(synced));
        peer.written = peer.written.max(counted(written));
        let woken = state.take_reached();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Notes that a replica has promised a higher line, and wakes all tasks.
    pub(crate) fn fence(&self, promised: u64) {
        let mut state = self.state();
        state.fenced = Some(state.fenced.map_or(promised, |fenced| fenced.max(promised)));
        let woken: Vec<_> = std::mem::take(&mut state.waiters).into_values().collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Returns the k-th highest synced position.
    pub(crate) fn mark(&self, k: usize) -> Lsn {
        self.state().mark(k)
    }

    /// Returns ready if the mark of `k` replicas is above `lsn`, or if the leader is fenced.
    /// Otherwise the waker is woken then, or at a truncation of the end that a replica reports.
    pub(crate) fn poll_above(
        &self,
        k: usize,
        lsn: Lsn,
        waiter: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<Result<(), u64>> {
        let mut state = self.state();
        if let Some(promised) = state.fenced {
            return Poll::Ready(Err(promised));
        }
        if state.mark(k) > lsn {
            if let Some(id) = waiter.take() {
                state.waiters.remove(&(k, lsn, id));
            }
            return Poll::Ready(Ok(()));
        }
        let id = *waiter.get_or_insert_with(|| {
            state.next_waiter += 1;
            state.next_waiter
        });
        let key = (k, lsn, id);
        match state.waiters.get_mut(&key) {
            Some(old) => old.clone_from(waker),
            None => drop(state.waiters.insert(key, waker.clone())),
        }
        Poll::Pending
    }

    /// Removes a waiter whose future is dropped.
    pub(crate) fn forget(&self, k: usize, lsn: Lsn, id: u64) {
        self.state().waiters.remove(&(k, lsn, id));
    }
}

impl State {
    /// Ends the connections of a replica, empties its mark, and returns the number of the next
    /// connection. Numbers are never used again, also if the replica was forgotten meanwhile.
    pub(crate) fn replace(&mut self, name: &str) -> (u64, &mut Peer) {
        self.newest_connection += 1;
        let number = self.newest_connection;
        let peer = self.peers.entry(name.to_owned()).or_default();
        // Kept for the connection if it does not wait yet.
        peer.replaced.notify_one();
        peer.replaced = Arc::default();
        (peer.connection, peer.is_connected) = (number, false);
        (peer.synced, peer.written) = (Lsn::ZERO, Lsn::ZERO);
        (number, peer)
    }

    /// Returns the replica if this connection is its newest one.
    pub(crate) fn current(&mut self, name: &str, number: u64) -> Option<&mut Peer> {
        self.peers.get_mut(name).filter(|peer| peer.connection == number)
    }

    fn mark(&self, k: usize) -> Lsn {
        let Some(index) = k.checked_sub(1) else { return Lsn::new(u64::MAX >> 2) };
        let mut synced: Vec<_> = self.peers.values().map(|peer| peer.synced).collect();
        synced.sort_unstable_by(|a, b| b.cmp(a));
        synced.get(index).copied().unwrap_or(Lsn::ZERO)
    }

    /// Removes and returns the waiters that the marks have passed.
    fn take_reached(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        for k in 1..=self.peers.len() {
            let mark = self.mark(k);
            let reached = (k, Lsn::ZERO, 0)..(k, mark, 0);
            let keys: Vec<_> = self.waiters.range(reached).map(|(key, _)| *key).collect();
            woken.extend(keys.iter().filter_map(|key| self.waiters.remove(key)));
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use highwater::{Wal, storage::MemoryStorage};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_of_replaced_connection_do_not_count() {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let peers = Peers::new(Source::new(&wal));
        let report = |number, lsn| {
            let lsn = Lsn::new(lsn);
            let epoch = peers.source.epoch();
            peers.report(("b", number), Report { epoch, written: lsn, synced: lsn });
        };
        let (first, woken) = {
            let mut state = peers.state();
            let (number, peer) = state.replace("b");
            (number, Arc::clone(&peer.replaced))
        };
        report(first, 200);
        assert_eq!(peers.mark(1), Lsn::new(200));
        // A refused handshake of the same name is enough.
        peers.greet("b");
        report(first, 200);
        assert_eq!(peers.mark(1), Lsn::ZERO);
        // The old connection notices it also if it did not wait then.
        woken.notified().await;

        let second = peers.state().replace("b").0;
        report(second, 100);
        assert_eq!(peers.mark(1), Lsn::new(100));
        drop(peers.state().peers.remove("b"));
        let third = peers.state().replace("b").0;
        report(second, 100);
        assert_eq!(peers.mark(1), Lsn::ZERO, "a forgotten replica has a new number");
        report(third, 50);
        assert_eq!(peers.mark(1), Lsn::new(50));
        peers.greet("stranger");
        assert_eq!(peers.state().peers.len(), 1);
    }
}
