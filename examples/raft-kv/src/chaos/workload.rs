//! The clients: random operations on a few keys. All written values differ.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    chaos::history::{Action, FINAL_READERS, Operation, Outcome},
    client::Client,
    protocol::Reply,
    random::Random,
    types::Change,
};

/// The time limit of an operation, after which its outcome is unknown.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit of some operations, short so that commands are applied after their client has
/// given up.
const SHORT_TIMEOUT: Duration = Duration::from_millis(4);

/// Records the operations of all clients, with one clock.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    operations: Arc<Mutex<Vec<Operation>>>,
    /// The number of acknowledged writes, for which the faults wait.
    acknowledged: Arc<watch::Sender<u64>>,
    started: Instant,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let acknowledged = Arc::new(watch::Sender::new(0));
        Recorder { operations: Arc::default(), acknowledged, started: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn acknowledged(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }

    fn add(&self, operation: Operation) {
        if operation.is_acknowledged_write() {
            self.acknowledged.send_modify(|count| *count += 1);
        }
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    pub(crate) fn history(&self) -> Vec<Operation> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn keys(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("key-{number}")).collect()
}

/// Returns the key that only this client writes.
pub(crate) fn own_key(client: u64) -> String {
    format!("own-{client}")
}

/// A client, with the last value that it has seen.
struct Actor {
    id: u64,
    client: Client,
    recorder: Recorder,
    random: Random,
    keys: Vec<String>,
    seen: Option<String>,
    written_count: u64,
}

/// Does operations until `stop` is set.
pub(crate) async fn run_client(
    id: u64,
    nodes: Vec<String>,
    keys: Vec<String>,
    recorder: Recorder,
    seed: u64,
    stop: watch::Receiver<bool>,
) {
    let mut random = Random::new(seed ^ id.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let client = Client::new(nodes.clone(), random.next());
    let mut actor = Actor { id, client, recorder, random, keys, seen: None, written_count: 0 };
    while !*stop.borrow() {
        // Uses a random node at times. Any node handles reads, and names the leader for writes.
        if actor.random.below(20) == 0 {
            let node = actor.random.below(nodes.len() as u64);
            actor.client.use_node(node as usize);
        }
        actor.do_operation().await;
        sleep(Duration::from_millis(actor.random.below(12))).await;
    }
}

impl Actor {
    async fn do_operation(&mut self) {
        let key = match self.random.below(8) {
            0 => own_key(self.id),
            _ => self.random.pick(&self.keys),
        };
        let is_own = key == own_key(self.id);
        let action = match self.random.below(10) {
            0..4 => Action::Get,
            4..7 => Action::Put(self.value()),
            _ if is_own => Action::Put(self.value()),
            // Mostly expects a value that it has just read, so that some operations succeed.
            _ => Action::Cas { expected: self.expected(&key).await, value: self.value() },
        };
        self.record(key, action).await;
    }

    fn value(&mut self) -> String {
        self.written_count += 1;
        format!("{}.{}", self.id, self.written_count)
    }

    async fn expected(&mut self, key: &str) -> Option<String> {
        if self.random.below(4) > 0 {
            self.record(key.to_owned(), Action::Get).await;
        }
        self.seen.clone()
    }

    async fn record(&mut self, key: String, action: Action) {
        let begin = self.recorder.now();
        if self.random.below(15) == 0 {
            self.client.shorten_first_attempt(SHORT_TIMEOUT);
        }
        let time_limit = if self.random.below(30) == 0 { SHORT_TIMEOUT } else { TIMEOUT };
        let outcome = perform(&mut self.client, &key, &action, time_limit).await;
        let end = self.recorder.now();
        match &outcome {
            Outcome::Read(value) | Outcome::Mismatch(value) => self.seen = value.clone(),
            Outcome::Written => {}
            Outcome::Unknown => {
                // Continues as a new client, because the old command may still be applied.
                self.client.begin_session(self.random.next());
            }
        }
        self.recorder.add(Operation { client: self.id, key, action, outcome, begin, end });
    }
}

async fn perform(client: &mut Client, key: &str, action: &Action, within: Duration) -> Outcome {
    let key = key.to_owned();
    let reply = match action.clone() {
        Action::Get => client.get(&key, within).await,
        Action::Put(value) => client.write(Change::Put { key, value }, within).await,
        Action::Cas { expected, value } => {
            client.write(Change::Cas { key, expected, value }, within).await
        }
    };
    match reply {
        Ok(Reply::Value(value)) => Outcome::Read(Some(value)),
        Ok(Reply::None) => Outcome::Read(None),
        Ok(Reply::Ok) => Outcome::Written,
        Ok(Reply::Mismatch(found)) => Outcome::Mismatch(found),
        Ok(_) | Err(_) => Outcome::Unknown,
    }
}

/// Reads every key through every node after the cluster has settled. Returns the failed reads.
pub(crate) async fn read_everything(
    nodes: &[String],
    keys: &[String],
    recorder: &Recorder,
) -> Vec<String> {
    let mut failures = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        // The client knows only this node, so that this node handles the read.
        let mut client = Client::new(vec![node.clone()], 0);
        for key in keys {
            let begin = recorder.now();
            let mut outcome = Outcome::Unknown;
            for _ in 0..10 {
                outcome = perform(&mut client, key, &Action::Get, TIMEOUT).await;
                if outcome != Outcome::Unknown {
                    break;
                }
            }
            if outcome == Outcome::Unknown {
                failures.push(format!("node {} cannot read {key}", index + 1));
                break;
            }
            let (client, key, end) = (FINAL_READERS + index as u64, key.clone(), recorder.now());
            recorder.add(Operation { client, key, action: Action::Get, outcome, begin, end });
        }
    }
    failures
}
