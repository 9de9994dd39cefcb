//! Changes groups at random, by seed, and records when each change was issued and acknowledged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use highwater::{
    Wal,
    raft::{Entries, Entry, Error, RaftLog, RaftOptions},
    simulation::{self, Disk, Random},
};

use super::model::{Model, ModelChange};

/// Small sizes, so that a short run rotates, waits for room, writes checkpoints and rewrites
/// entries.
pub(crate) fn options(seed: u64) -> RaftOptions {
    let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
    let cache = [0, 700, 1 << 20][seed as usize % 3];
    RaftLog::options().wal(wal).tail_cache_bytes(cache).rewrite_above_bytes(12 << 10).codec(9)
}

/// One issued change.
#[derive(Clone, Debug)]
pub(crate) struct IssuedChange {
    /// The number of disk operations before it.
    pub(crate) began: u64,
    /// The LSN of its record; `None` if it is unknown or there is no record.
    pub(crate) lsn: Option<u64>,
    pub(crate) change: ModelChange,
    pub(crate) after: Model,
    /// The number of disk operations when it was acknowledged.
    pub(crate) acknowledged: Option<u64>,
}

/// The changes of each group, in the order in which they were issued.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) before: BTreeMap<u64, Model>,
    pub(crate) steps: BTreeMap<u64, Vec<IssuedChange>>,
    /// Acknowledgements that came twice.
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

/// Returns a change that mostly fits the state of the group.
pub(crate) fn random_change(random: &mut Random, model: &Model, tag: u64) -> ModelChange {
    let (first, next) = (model.first(), model.next());
    let back = random.below((next - first).min(6) as usize + 1) as u64;
    match random.below(24) {
        0..10 if model.entries.is_empty() && random.one_in(3) => {
            ModelChange::Append(entries(random, next + 1 + back, tag))
        }
        0..10 => ModelChange::Append(entries(random, next, tag)),
        10 => ModelChange::Append(entries(random, (next + 1).saturating_sub(2 * back), tag)),
        11 | 12 => ModelChange::Overwrite(entries(random, next - back, tag)),
        13 | 14 => ModelChange::TruncateAfter((next - back).checked_sub(1)),
        15 => ModelChange::TruncateAfter((next + back).checked_sub(2)),
        16 | 17 => ModelChange::Purge(first + 2 * back, tag, b"id".to_vec()),
        18 => ModelChange::Purge(next - back, tag, payload(random, tag)),
        19 => ModelChange::Vote(payload(random, tag)),
        20 | 21 => ModelChange::Committed(payload(random, tag)),
        22 if random.one_in(6) => ModelChange::Remove,
        _ => ModelChange::User(payload(random, tag)),
    }
}

/// The delayed vote of each group.
pub(crate) type DelayedVotes = Arc<Mutex<BTreeMap<u64, Vec<u8>>>>;

/// Changes the groups of one task.
#[derive(Clone)]
pub(crate) struct Driver {
    pub(crate) log: RaftLog,
    pub(crate) disk: Disk,
    pub(crate) notes: Notes,
    /// For a deliberate mistake of the caller: votes that are issued after the next change.
    pub(crate) delayed_votes: Option<DelayedVotes>,
}

impl Driver {
    /// Issues and records a change. Waits until it is durable if `waits`.
    pub(crate) async fn issue(
        &self,
        id: u64,
        change: ModelChange,
        waits: bool,
    ) -> Result<(), Error> {
        let mut after = self.notes.lock().unwrap().model(id);
        let is_allowed = after.apply(&change);
        let number = {
            // Recorded before it is issued, because it may be on the disk before the call returns.
            let mut notes = self.notes.lock().unwrap();
            let began = self.disk.operation_count();
            let steps = notes.steps.entry(id).or_default();
            if is_allowed {
                let acknowledged = None;
                let change = change.clone();
                steps.push(IssuedChange { began, lsn: None, change, after, acknowledged });
            }
            steps.len().wrapping_sub(1)
        };
        let group = self.log.group(id);
        if let Some(delayed) = &self.delayed_votes {
            if let ModelChange::Vote(vote) = change {
                delayed.lock().unwrap().insert(id, vote);
                return Ok(());
            }
        }
        let delayed_votes = self.delayed_votes.as_ref();
        let delayed = delayed_votes.and_then(|delayed| delayed.lock().unwrap().remove(&id));
        let ticket = match change {
            ModelChange::Append(entries) => group.append(entries).await,
            ModelChange::Overwrite(entries) => {
                let mut gathered = Entries::new();
                for entry in &entries {
                    let encode = |to: &mut Vec<u8>| to.extend_from_slice(&entry.payload);
                    gathered.push_with(entry.index, entry.term, encode);
                }
                group.append_overwriting(gathered).await
            }
            ModelChange::TruncateAfter(last) => group.truncate_after(last).await,
            ModelChange::Purge(upto, term, id) => group.purge(upto, term, id).await,
            ModelChange::User(bytes) => group.set_user(bytes).await,
            ModelChange::Remove => self.log.remove_group(id).await,
            ModelChange::Committed(bytes) => return group.set_committed(bytes).await,
            ModelChange::Vote(bytes) => group.set_vote(bytes).await,
        };
        let ticket = match ticket {
            Err(Error::NotContiguous { .. } | Error::Purged { .. }) if !is_allowed => return Ok(()),
            ticket => ticket?,
        };
        assert!(is_allowed, "the log accepted a change that the model rejects");
        if let Some(vote) = delayed {
            let _ = group.set_vote(vote).await?;
        }
        let lsn = ticket.lsn().as_u64();
        let step_at = |notes: &mut History, note: &dyn Fn(&mut IssuedChange)| {
            if let Some(step) = notes.steps.get_mut(&id).and_then(|steps| steps.get_mut(number)) {
                note(step);
            }
        };
        step_at(&mut self.notes.lock().unwrap(), &|step| {
            // The LSN is no multiple of 8 if nothing was changed. LSN 0 is the log's own first
            // record.
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
                notes.contradictions.push(format!("{lsn} of group {id} was acknowledged twice"));
            }
        });
        Ok(())
    }

    /// Issues `count` changes of the task's own groups.
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
