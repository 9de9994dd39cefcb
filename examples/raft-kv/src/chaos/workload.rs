//! The clients: random operations on a few keys, with values that are all different.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    chaos::history::{Action, Operation, Outcome},
    client::Client,
    protocol::Reply,
    random::Random,
    types::Change,
};

/// After so long without an answer an operation is given up, and stays open in the history.
const PATIENCE: Duration = Duration::from_secs(3);
/// Now and then that is after a moment, so that there are commands under way which nobody waits for.
const IMPATIENCE: Duration = Duration::from_millis(4);

/// What all clients write down, against one clock.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    operations: Arc<Mutex<Vec<Operation>>>,
    started: Instant,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Recorder { operations: Arc::default(), started: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn add(&self, operation: Operation) {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    pub(crate) fn history(&self) -> Vec<Operation> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn keys(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("key-{number}")).collect()
}

/// The key that this client alone writes to.
pub(crate) fn own_key(client: u64) -> String {
    format!("own-{client}")
}

/// One client, with the values that it has seen.
struct Actor {
    id: u64,
    client: Client,
    recorder: Recorder,
    random: Random,
    keys: Vec<String>,
    seen: Option<String>,
    written_count: u64,
}

/// Works until it is told to stop.
pub(crate) async fn work(
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
        // Reads through any node, and writes that it sends on to the leader.
        if actor.random.below(20) == 0 {
            let node = actor.random.below(nodes.len() as u64);
            actor.client.turn_to(node as usize);
        }
        actor.operate().await;
        sleep(Duration::from_millis(actor.random.below(12))).await;
    }
}

impl Actor {
    async fn operate(&mut self) {
        let key = match self.random.below(8) {
            0 => own_key(self.id),
            _ => self.random.pick(&self.keys),
        };
        let is_own = key == own_key(self.id);
        let action = match self.random.below(10) {
            0..4 => Action::Get,
            4..7 => Action::Put(self.value()),
            _ if is_own => Action::Put(self.value()),
            // What it expects it has mostly just seen, so that some succeed and some don't.
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
            self.client.be_hasty(IMPATIENCE);
        }
        let patience = if self.random.below(30) == 0 { IMPATIENCE } else { PATIENCE };
        let outcome = perform(&mut self.client, &key, &action, patience).await;
        let end = self.recorder.now();
        match &outcome {
            Outcome::Read(value) | Outcome::Mismatch(value) => self.seen = value.clone(),
            Outcome::Written => {}
            Outcome::Unknown => {
                // As a client that was started again: nobody waits for the old command any more.
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

/// Reads every key through every node, each by itself, when all is quiet again. Says what can't be
/// read.
pub(crate) async fn read_everything(
    nodes: &[String],
    keys: &[String],
    recorder: &Recorder,
) -> Vec<String> {
    let mut failures = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        // A client that knows this node alone; a read is sent on to nobody.
        let mut client = Client::new(vec![node.clone()], 0);
        for key in keys {
            let begin = recorder.now();
            let mut outcome = Outcome::Unknown;
            for _ in 0..10 {
                outcome = perform(&mut client, key, &Action::Get, PATIENCE).await;
                if outcome != Outcome::Unknown {
                    break;
                }
            }
            if outcome == Outcome::Unknown {
                failures.push(format!("{key} can't be read through node {}", index + 1));
                break;
            }
            let (client, key, end) = (1_000 + index as u64, key.clone(), recorder.now());
            recorder.add(Operation { client, key, action: Action::Get, outcome, begin, end });
        }
    }
    failures
}
