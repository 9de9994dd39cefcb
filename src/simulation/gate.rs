//! A gate that holds operations until a test lets them pass.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use tokio::sync::watch;

use crate::{sync::LockAlways, turn};

/// The longest time for which a gate holds an operation. A failed test may leave its gate closed,
/// and its runtime must still be able to stop.
const HELD_AT_MOST: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct GateState {
    allowed: Mutex<u64>,
    opened: Condvar,
    arrived: watch::Sender<u64>,
}

impl GateState {
    pub(super) fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        if let Some(turns) = turn::simulated() {
            // The gate holds nothing once the simulation is over.
            while !self.take() && turns.wait() {}
            return;
        }
        let allowed = self.allowed.lock_always();
        let waited = self.opened.wait_timeout_while(allowed, HELD_AT_MOST, |allowed| *allowed == 0);
        if let Ok((mut allowed, _)) = waited {
            use_up_one(&mut allowed);
        }
    }

    fn take(&self) -> bool {
        let mut allowed = self.allowed.lock_always();
        let is_open = *allowed > 0;
        use_up_one(&mut allowed);
        is_open
    }
}

fn use_up_one(allowed: &mut u64) {
    if *allowed != u64::MAX {
        *allowed = allowed.saturating_sub(1);
    }
}

/// Holds operations until it is opened or dropped. It holds nothing longer than 20 seconds, or past
/// the end of the simulation.
pub struct Gate(Arc<GateState>);

impl Gate {
    pub(super) fn new(state: Arc<GateState>) -> Self {
        Gate(state)
    }

    /// Waits until `count` operations have arrived since the gate was created.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn reached(&self, count: u64) {
        let mut arrived = self.0.arrived.subscribe();
        // The sender lives as long as the gate.
        let _ = arrived.wait_for(|&seen| seen >= count).await;
    }

    /// Lets `count` operations pass: held ones, and then later ones.
    pub fn allow(&self, count: u64) {
        let mut allowed = self.0.allowed.lock_always();
        *allowed = allowed.saturating_add(count);
        self.0.opened.notify_all();
    }

    /// Lets all operations pass from now on.
    pub fn open(&self) {
        self.allow(u64::MAX);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}
