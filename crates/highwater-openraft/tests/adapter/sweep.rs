//! Cuts the power at every moment of random runs. The store must hold a prefix of the calls, with
//! every call that was reported as durable. The sweep must also catch stores with a mistake.

use std::{collections::BTreeSet, sync::Arc};

use highwater::simulation::{self, Disk, PowerCut, Promises, Random, Simulation, Survival};
use openraft::{
    RaftLogReader, Vote,
    storage::RaftLogStorage,
    type_config::alias::{EntryOf, LogIdOf, VoteOf},
};

use crate::{
    doctored::{Doctored, Mistake},
    medium::{Medium, Store, append, entry, log_id, tiny},
    state_machine::Types,
};

/// The state that a store reports.
#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    vote: Option<VoteOf<Types>>,
    committed: Option<LogIdOf<Types>>,
    purged: Option<LogIdOf<Types>>,
    entries: Vec<EntryOf<Types>>,
}

impl Contents {
    async fn of(store: &mut Store) -> Self {
        let state = store.get_log_state().await.unwrap();
        let entries = store.try_get_log_entries(..).await.unwrap();
        let last = entries.last().map(|entry| entry.log_id).or(state.last_purged_log_id);
        assert_eq!(state.last_log_id, last);
        Contents {
            vote: store.read_vote().await.unwrap(),
            committed: store.read_committed().await.unwrap(),
            purged: state.last_purged_log_id,
            entries,
        }
    }

    fn next(&self) -> u64 {
        let last = self.entries.last().map(|entry| entry.log_id).or(self.purged);
        last.map_or(1, |last| last.index + 1)
    }

    fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.leader_id.term)
    }

    fn make(&mut self, call: &Call) {
        match call {
            Call::Vote(vote) => self.vote = Some(*vote),
            Call::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Call::TruncateAfter(last) => {
                self.entries
                    .retain(|entry| Some(entry.log_id.index) <= last.map(|last| last.index));
            }
            Call::Purge(upto) => {
                self.purged = Some(*upto);
                self.entries.retain(|entry| entry.log_id.index > upto.index);
            }
            Call::Committed(id) => self.committed = Some(*id),
        }
    }
}

#[derive(Clone, Debug)]
enum Call {
    Vote(VoteOf<Types>),
    Append(Vec<EntryOf<Types>>),
    TruncateAfter(Option<LogIdOf<Types>>),
    Purge(LogIdOf<Types>),
    Committed(LogIdOf<Types>),
}

impl Call {
    /// Returns a call that is possible next.
    fn random(random: &mut Random, now: &Contents) -> Call {
        let some_entry = |random: &mut Random| {
            let count = now.entries.len();
            (count > 0).then(|| now.entries[random.below(count)].log_id)
        };
        match random.below(10) {
            0 | 1 => Call::Vote(Vote::new(now.term() + 1, random.below(3) as u64)),
            2 => Call::TruncateAfter(some_entry(random)),
            3 => match some_entry(random) {
                Some(id) => Call::Purge(id),
                // A snapshot that covers more than the log.
                None => Call::Purge(log_id(now.term(), now.next() + random.below(3) as u64)),
            },
            4 | 5 if !now.entries.is_empty() => Call::Committed(some_entry(random).unwrap()),
            _ => {
                let first = now.next();
                let indexes = first..first + 1 + random.below(4) as u64;
                let value = |random: &mut Random| {
                    let length = random.below(400);
                    format!("{} {}", random.next_u64(), "x".repeat(length))
                };
                Call::Append(indexes.map(|index| entry(now.term(), index, value(random))).collect())
            }
        }
    }
}

/// A run: the state after each call, and when each call was acknowledged.
struct Run {
    disk: Disk,
    states: Vec<Contents>,
    promises: Arc<Promises<usize>>,
}

const CALLS: usize = 28;

fn run<S: RaftLogStorage<Types>>(seed: u64, subject: impl Fn(Store) -> S) -> Run {
    let disk = Disk::new(seed).recording();
    let promises = Arc::new(Promises::new(&disk));
    let mut states = vec![Contents::default()];
    Simulation::new(seed).run(async {
        let mut random = Random::new(seed);
        let store = Medium::Disk(disk.clone()).open(tiny()).await.unwrap();
        let mut subject = subject(store.clone());
        for number in 1..=CALLS {
            let mut state = states.last().unwrap().clone();
            let call = Call::random(&mut random, &state);
            state.make(&call);
            states.push(state);
            match call {
                Call::Vote(vote) => {
                    subject.save_vote(&vote).await.unwrap();
                    promises.make(number);
                }
                Call::Append(entries) => {
                    let called = append(&mut subject, entries).await.unwrap();
                    let promises = Arc::clone(&promises);
                    let answered = async move {
                        called.await.expect("the callback is called").unwrap();
                        promises.make(number);
                    };
                    if random.one_in(3) {
                        answered.await;
                    } else {
                        drop(simulation::spawn(answered));
                    }
                }
                Call::TruncateAfter(last) => subject.truncate_after(last).await.unwrap(),
                Call::Purge(upto) => subject.purge(upto).await.unwrap(),
                Call::Committed(id) => subject.save_committed(Some(id)).await.unwrap(),
            }
            if random.one_in(4) {
                simulation::yield_now().await;
            }
        }
        if random.one_in(2) {
            store.close().await.unwrap();
        }
    });
    Run { disk, states, promises }
}

/// A fault in the state after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// The state is a prefix of the calls that lacks an acknowledged call.
    LostWhatWasAnswered,
    /// No prefix of the calls leads to the state.
    NoPrefix,
}

impl Run {
    fn look_at(&self, cut: &PowerCut) -> Option<Wrong> {
        let (first, again) = Simulation::new(cut.operation).run(async {
            let disk = cut.disk();
            let mut store = Medium::Disk(disk.clone()).open(tiny()).await.expect("it opens");
            let first = Contents::of(&mut store).await;
            drop(store);
            // The reported state survives another power cut directly after opening.
            let disk = disk.crash(Survival::Nothing);
            let mut store = Medium::Disk(disk).open(tiny()).await.expect("it opens again");
            (first, Contents::of(&mut store).await)
        });
        assert_eq!(first, again, "{cut}: reported state is lost at the next cut");
        let answered = self.promises.made_by(cut.operation).into_iter().max().unwrap_or(0);
        match self.states.iter().rposition(|state| *state == first) {
            Some(calls) if calls >= answered => None,
            Some(_) => Some(Wrong::LostWhatWasAnswered),
            None => Some(Wrong::NoPrefix),
        }
    }
}

/// Returns the faults of several runs, with their places.
fn sweep<S: RaftLogStorage<Types>>(
    seeds: u64,
    subject: impl Fn(Store) -> S,
) -> (BTreeSet<Wrong>, Vec<String>) {
    let (mut kinds, mut places, mut cuts) = (BTreeSet::new(), Vec::new(), 0);
    simulation::for_each_seed(seeds, |seed| {
        let run = run(seed, &subject);
        for cut in run.disk.power_cuts(1) {
            cuts += 1;
            if let Some(wrong) = run.look_at(&cut) {
                kinds.insert(wrong);
                places.push(format!("seed {seed}, {cut}: {wrong:?}"));
            }
        }
    });
    println!("{cuts} cuts, {} of them wrong", places.len());
    assert!(cuts >= 100 * seeds || std::env::var_os("HIGHWATER_SEED").is_some(), "{cuts} cuts");
    (kinds, places)
}

#[test]
fn power_cut_leaves_a_prefix_with_all_acknowledged() {
    let (kinds, places) = sweep(6, |store| store);
    assert!(kinds.is_empty(), "{places:#?}");
}

fn caught(mistake: Mistake) -> BTreeSet<Wrong> {
    sweep(2, |store| Doctored::new(store, mistake)).0
}

#[test]
fn early_callback_is_caught() {
    assert!(caught(Mistake::CallsBackBeforeDurability).contains(&Wrong::LostWhatWasAnswered));
}

#[test]
fn vote_without_sync_is_caught() {
    assert!(caught(Mistake::VoteIsNotSynced).contains(&Wrong::LostWhatWasAnswered));
}

#[test]
fn vote_written_after_its_entries_is_caught() {
    assert!(caught(Mistake::VoteBehindItsEntries).contains(&Wrong::NoPrefix));
}
