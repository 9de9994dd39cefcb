//! What groups go through, by seed, and the note of what was issued and acknowledged when.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use highwater::{
    Error, Wal,
    raft::{Entries, Entry, RaftLog, RaftOptions},
    simulation::{self, Disk, Random},
};

use super::model::{Change, Model};

/// Small, so that a short run rotates, waits for room, writes state and copies what lags.
pub(crate) fn options(seed: u64) -> RaftOptions {
    let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
    let cache = [0, 700, 1 << 20][seed as usize % 3];
    RaftLog::options().wal(wal).tail_cache_bytes(cache).rewrite_above_bytes(12 << 10).codec(9)
}

/// One change, as it was issued.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The count of disk operations before.
    pub(crate) began: u64,
    /// Where its record stands; `None` if it wasn't told, or not known to have been ordered.
    pub(crate) lsn: Option<u64>,
    pub(crate) change: Change,
    pub(crate) after: Model,
    /// The count of disk operations when it was acknowledged.
    pub(crate) acknowledged: Option<u64>,
}

/// The changes of each group, in the order in which they were issued.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) before: BTreeMap<u64, Model>,
    pub(crate) steps: BTreeMap<u64, Vec<Step>>,
    /// Acknowledgements that came out of order, or twice.
    pub(crate) contradictions: Vec<String>,
}

pub(crate) type Notes = Arc<Mutex<History>>;

impl History {
    pub(crate) fn model(&self, group: u64) -> Model {
        let last = self.steps.get(&group).and_then(|steps| steps.last());
        last.map_or_else(
            || self.before.get(&group).cloned().unwrap_or_default(),
            |step| step.after.clone(),
        )
    }
}

fn payload(random: &mut Random, tag: u64) -> Vec<u8> {
    let bytes = match random.below(40) {
        0 => 3000,
        1..4 => 400,
        _ => random.below(60),
    };
    let mut payload = format!("{tag}:").into_bytes();
    payload.resize(payload.len() + bytes, (tag % 251) as u8 | 1);
    payload
}

fn entries(random: &mut Random, first: u64, tag: u64) -> Vec<Entry> {
    let count = 1 + random.below(4) as u64;
    let term = tag / 4;
    (first..first + count)
        .map(|index| Entry { index, term, payload: payload(random, tag).into() })
        .collect()
}

/// A change that suits what the group is; sometimes one that doesn't.
pub(crate) fn random_change(random: &mut Random, model: &Model, tag: u64) -> Change {
    let (first, next) = (model.first(), model.next());
    let back = random.below((next - first).min(6) as usize + 1) as u64;
    match random.below(24) {
        0..10 if model.entries.is_empty() && random.one_in(3) => {
            Change::Append(entries(random, next + 1 + back, tag))
        }
        0..10 => Change::Append(entries(random, next, tag)),
        10 => Change::Append(entries(random, (next + 1).saturating_sub(2 * back), tag)),
        11 | 12 => Change::Overwrite(entries(random, next - back, tag)),
        13 | 14 => Change::TruncateAfter((next - back).checked_sub(1)),
        15 => Change::TruncateAfter((next + back).checked_sub(2)),
        16 | 17 => Change::Purge(first + 2 * back, tag, b"id".to_vec()),
        18 => Change::Purge(next - back, tag, payload(random, tag)),
        19 => Change::Vote(payload(random, tag)),
        20 | 21 => Change::Committed(payload(random, tag)),
        22 if random.one_in(6) => Change::Remove,
        _ => Change::User(payload(random, tag)),
    }
}

/// The votes that are held back, by group.
pub(crate) type HeldBack = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

/// What a task does with one group.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) log: RaftLog,
    pub(crate) disk: Disk,
    pub(crate) notes: Notes,
    /// A mistake of whoever embeds the log: a vote is issued behind what follows it. What is held
    /// back.
    pub(crate) swapped: Option<HeldBack>,
}

impl Driver {
    /// Issues a change and notes it; waits for it if `waits`.
    pub(crate) async fn issue(&self, id: u64, change: Change, waits: bool) -> Result<(), Error> {
        let mut after = self.notes.lock().unwrap().model(id);
        let is_allowed = after.apply(&change);
        let number = {
            // Noted before it is issued: it may be on the disk before its answer is.
            let mut notes = self.notes.lock().unwrap();
            let began = self.disk.operation_count();
            let steps = notes.steps.entry(id).or_default();
            if is_allowed {
                let acknowledged = None;
                let change = change.clone();
                steps.push(Step { began, lsn: None, change, after, acknowledged });
            }
            steps.len().wrapping_sub(1)
        };
        let group = self.log.group(id);
        if let Some(held) = &self.swapped {
            if let Change::Vote(vote) = change {
                held.lock().unwrap().insert(id, vote);
                return Ok(());
            }
        }
        let held = self.swapped.as_ref().and_then(|held| held.lock().unwrap().remove(&id));
        let ticket = match change {
            Change::Append(entries) => group.append(entries).await,
            Change::Overwrite(entries) => {
                let mut gathered = Entries::new();
                for entry in &entries {
                    let encode = |to: &mut Vec<u8>| to.extend_from_slice(&entry.payload);
                    gathered.push_with(entry.index, entry.term, encode);
                }
                group.append_overwriting(gathered).await
            }
            Change::TruncateAfter(last) => group.truncate_after(last).await,
            Change::Purge(upto, term, id) => group.purge(upto, term, id).await,
            Change::User(bytes) => group.set_user(bytes).await,
            Change::Remove => self.log.remove_group(id).await,
            Change::Committed(bytes) => return group.set_committed(bytes).await,
            Change::Vote(bytes) => group.set_vote(bytes).await,
        };
        let ticket = match ticket {
            Err(Error::NotContiguous { .. } | Error::Purged { .. }) if !is_allowed => return Ok(()),
            answer => answer?,
        };
        assert!(is_allowed, "what the model refuses was taken");
        if let Some(vote) = held {
            let _ = group.set_vote(vote).await?;
        }
        let lsn = ticket.lsn().as_u64();
        let step_at = |notes: &mut History, note: &dyn Fn(&mut Step)| {
            if let Some(step) = notes.steps.get_mut(&id).and_then(|steps| steps.get_mut(number)) {
                note(step);
            }
        };
        step_at(&mut self.notes.lock().unwrap(), &|step| {
            // Where nothing had to be changed there is no record; the log's own first stands at 0.
            step.lsn = Some(lsn).filter(|lsn| lsn % 8 == 0 && *lsn > 0);
        });
        if waits {
            ticket.synced().await?;
            let now = self.disk.operation_count();
            step_at(&mut self.notes.lock().unwrap(), &|step| step.acknowledged = Some(now));
            return Ok(());
        }
        let (notes, disk) = (Arc::clone(&self.notes), self.disk.clone());
        ticket.on_durable(move |outcome| {
            let mut notes = notes.lock().unwrap();
            if outcome.is_err() {
                return;
            }
            let step = notes.steps.get_mut(&id).and_then(|steps| steps.get_mut(number));
            let now = disk.operation_count();
            if step.is_some_and(|step| step.acknowledged.replace(now).is_some()) {
                notes.contradictions.push(format!("{lsn} of group {id} was answered twice"));
            }
        });
        Ok(())
    }

    /// A task's share: so many changes of the groups that are its own.
    pub(crate) async fn drive(&self, groups: &[u64], seed: u64, count: usize) -> Result<(), Error> {
        let mut random = Random::new(seed);
        for number in 0..count {
            let id = groups[random.below(groups.len())];
            let model = self.notes.lock().unwrap().model(id);
            let tag = seed % 1000 * 1000 + number as u64;
            let change = random_change(&mut random, &model, tag);
            let waits = random.one_in(4);
            self.issue(id, change, waits).await?;
            if random.one_in(6) {
                simulation::yield_now().await;
            }
        }
        Ok(())
    }
}
