//! Does an archive with two writers stay one history, and does the fenced writer learn it?
//!
//! An archive is objects and a manifest. An object holds one record of a line, here one LSN. The
//! manifest is a sequence of numbered entries. The old leader archives line 1. A promoted node
//! archives line 2, which shares the records below its base. It begins with a fence entry. Each
//! put may succeed although its writer gets a timeout, each list may be stale, each writer may
//! stall or restart between two steps, and unused objects are removed at any time.

mod store;

use stateright::{Model, Property};

use self::store::{Archive, Entry, Line, Object};
use crate::check::{assert_broken, assert_holds, bound};

const OBJECTS: &str = "the object of an entry is there, with the content of its line";
const FENCED: &str = "no entry of a lower line follows a fence";
const RESTORED: &str = "each restored log is a prefix of one line";

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A put replaces an object of the same name, and names have no line.
    ReplaceObject,
    /// A put replaces a manifest entry of the same number.
    ReplaceEntry,
    /// The entry is put before its object.
    EntryFirst,
    /// Unused objects of a line are removed although the line is not fenced.
    PruneUnfenced,
    /// A restore takes the first entry of each LSN, of any line.
    RestoreAnyLine,
}

#[derive(Clone, Debug)]
struct Archiving {
    mistake: Mistake,
    lsns: usize,
    restarts: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The writer must put a fence before anything else.
    Fence,
    Idle,
    /// The first of the two puts for an LSN has succeeded.
    HalfDone(usize),
    /// The writer has found a fence of a higher line.
    Fenced,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writer {
    line: Line,
    step: Step,
    /// The number of entries that the writer has read. It puts the next one.
    seen: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    archive: Archive,
    old: Writer,
    /// The archive of the promoted node, and the base of its line.
    new: Option<(Writer, usize)>,
    restarts: u8,
}

/// The reply to a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Ok,
    /// The put has been done, and the writer gets a timeout.
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A follower is promoted, with this base.
    Promote(usize),
    Put(Line, Reply),
    /// The writer reads the manifest up to this number of entries.
    Read(Line, usize),
    /// The writer restarts, and has read nothing.
    Restart(Line),
    /// An unused object is removed by the first entries of the manifest.
    Prune(Object, usize),
}

impl Archiving {
    fn new(mistake: Mistake) -> Self {
        Self { mistake, lsns: bound(4, 5), restarts: bound(2, 3) }
    }

    /// Returns the next LSN that the writer's line has no entry for, among the entries it has read.
    fn next_lsn(&self, state: &State, writer: &Writer) -> Option<usize> {
        let entries = state.archive.entries.get(..writer.seen)?;
        let base = state.base(writer.line);
        (base..self.lsns).find(|lsn| !entries.contains(&Entry::Segment(writer.line, *lsn)))
    }

    /// Puts an object. Returns whether the writer may continue.
    fn put_object(&self, archive: &mut Archive, line: Line, lsn: usize) -> bool {
        let name = if self.mistake == Mistake::ReplaceObject { 0 } else { line };
        let object = Object { name, lsn, content: line };
        if self.mistake == Mistake::ReplaceObject {
            archive.objects.retain(|older| (older.name, older.lsn) != (name, lsn));
        }
        match archive.find(name, lsn) {
            // A put of the same content has succeeded before, and its reply was lost.
            Some(older) => older.content == line,
            None => {
                archive.objects.insert(object);
                true
            }
        }
    }

    /// Puts the entry after the last one that the writer has read. Returns whether it is there.
    fn put_entry(&self, archive: &mut Archive, writer: &Writer, entry: Entry) -> bool {
        let is_replaced = self.mistake == Mistake::ReplaceEntry;
        match archive.entries.get_mut(writer.seen) {
            Some(older) if is_replaced => *older = entry,
            // Of a put whose reply was lost.
            Some(older) => return *older == entry,
            None => archive.entries.push(entry),
        }
        true
    }

    fn put(&self, state: &mut State, line: Line, reply: Reply) -> Option<()> {
        let mut writer = state.writer(line)?.clone();
        let (entry, step) = match writer.step {
            Step::Fenced => return None,
            Step::Fence => (Some(Entry::Fence(line, state.base(line))), Step::Idle),
            Step::Idle => {
                let lsn = self.next_lsn(state, &writer)?;
                let entry = Entry::Segment(line, lsn);
                let is_entry = self.mistake == Mistake::EntryFirst;
                (is_entry.then_some(entry), Step::HalfDone(lsn))
            }
            Step::HalfDone(lsn) => {
                let entry = Entry::Segment(line, lsn);
                let is_entry = self.mistake != Mistake::EntryFirst;
                (is_entry.then_some(entry), Step::Idle)
            }
        };
        let lsn = match (writer.step, step) {
            (Step::HalfDone(lsn), _) | (_, Step::HalfDone(lsn)) => lsn,
            _ => 0,
        };
        let is_done = match entry {
            Some(entry) => self.put_entry(&mut state.archive, &writer, entry),
            None => self.put_object(&mut state.archive, line, lsn),
        };
        if reply == Reply::Ok && is_done {
            writer.seen += usize::from(entry.is_some());
            writer.step = step;
        }
        *state.writer_mut(line)? = writer;
        Some(())
    }

    fn read(state: &mut State, line: Line, seen: usize) -> Option<()> {
        let fenced = state.archive.line_of(seen) > line;
        let entries = state.archive.entries.clone();
        let base = state.base(line);
        let writer = state.writer_mut(line)?;
        if writer.step == Step::Fenced || seen <= writer.seen {
            return None;
        }
        writer.seen = seen;
        // A put of which the reply was lost is found among the entries.
        let is_there = |entry| entries.iter().take(seen).any(|older| *older == entry);
        writer.step = match writer.step {
            _ if fenced => Step::Fenced,
            Step::Fence if is_there(Entry::Fence(line, base)) => Step::Idle,
            Step::HalfDone(lsn) if is_there(Entry::Segment(line, lsn)) => Step::Idle,
            step => step,
        };
        Some(())
    }

    /// Removes an object that the first `seen` entries do not name.
    fn prune(&self, state: &mut State, object: Object, seen: usize) -> Option<()> {
        let entries = state.archive.entries.get(..seen)?;
        let is_used = entries.contains(&Entry::Segment(object.content, object.lsn));
        let is_fenced = object.content < state.archive.line_of(seen);
        let may_remove = is_fenced || self.mistake == Mistake::PruneUnfenced;
        (!is_used && may_remove && state.archive.objects.remove(&object)).then_some(())
    }

    /// Restores from the first `seen` entries. Returns the objects' lines and those expected.
    fn restored(&self, state: &State, seen: usize) -> Vec<(Option<Line>, Line)> {
        let entries = &state.archive.entries[..seen];
        let newest = state.archive.line_of(seen);
        let of_lsn = |lsn: usize| if lsn < state.base(newest) { 1 } else { newest };
        let lines = (0..self.lsns).map_while(|lsn| {
            let mut found = entries.iter().filter_map(|entry| match entry {
                Entry::Segment(line, at) if *at == lsn => Some(*line),
                _ => None,
            });
            let line = match self.mistake {
                Mistake::RestoreAnyLine => found.next(),
                _ => found.find(|line| *line == of_lsn(lsn)),
            }?;
            let name = if self.mistake == Mistake::ReplaceObject { 0 } else { line };
            let content = state.archive.find(name, lsn).map(|object| object.content);
            Some((content, of_lsn(lsn)))
        });
        lines.collect()
    }
}

impl State {
    fn writer(&self, line: Line) -> Option<&Writer> {
        if line == 1 { Some(&self.old) } else { self.new.as_ref().map(|(writer, _)| writer) }
    }

    fn writer_mut(&mut self, line: Line) -> Option<&mut Writer> {
        if line == 1 { Some(&mut self.old) } else { self.new.as_mut().map(|(writer, _)| writer) }
    }

    /// Returns the first LSN of a line.
    fn base(&self, line: Line) -> usize {
        if line == 1 { 0 } else { self.new.as_ref().map_or(0, |(_, base)| *base) }
    }
}

impl Model for Archiving {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let old = Writer { line: 1, step: Step::Idle, seen: 0 };
        vec![State { archive: Archive::default(), old, new: None, restarts: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let count = state.archive.entries.len();
        if state.new.is_none() {
            actions.extend((0..=self.lsns).map(Action::Promote));
        }
        for line in [1, 2] {
            let Some(writer) = state.writer(line) else { continue };
            actions.extend([Reply::Ok, Reply::Timeout].map(|reply| Action::Put(line, reply)));
            actions.extend((writer.seen + 1..=count).map(|seen| Action::Read(line, seen)));
            if state.restarts < self.restarts {
                actions.push(Action::Restart(line));
            }
        }
        for object in &state.archive.objects {
            actions.extend((0..=count).map(|seen| Action::Prune(*object, seen)));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Promote(base) => {
                next.new = Some((Writer { line: 2, step: Step::Fence, seen: 0 }, base));
            }
            Action::Put(line, reply) => self.put(&mut next, line, reply)?,
            Action::Read(line, seen) => Self::read(&mut next, line, seen)?,
            Action::Restart(line) => {
                let step = if line == 1 { Step::Idle } else { Step::Fence };
                *next.writer_mut(line)? = Writer { line, step, seen: 0 };
                next.restarts += 1;
            }
            Action::Prune(object, seen) => self.prune(&mut next, object, seen)?,
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(OBJECTS, |model: &Self, state: &State| {
                state.archive.entries.iter().all(|entry| match entry {
                    Entry::Segment(line, lsn) => {
                        let is_unnamed = model.mistake == Mistake::ReplaceObject;
                        let object = state.archive.find(if is_unnamed { 0 } else { *line }, *lsn);
                        object.is_some_and(|object| object.content == *line)
                    }
                    Entry::Fence(..) => true,
                })
            }),
            Property::always(FENCED, |_: &Self, state: &State| {
                let lines: Vec<_> = state.archive.entries.iter().map(Entry::line).collect();
                lines.is_sorted()
            }),
            Property::always(RESTORED, |model: &Self, state: &State| {
                (0..=state.archive.entries.len()).all(|seen| {
                    let restored = model.restored(state, seen);
                    restored.iter().all(|(found, expected)| *found == Some(*expected))
                })
            }),
            Property::sometimes("the old leader is fenced", |_: &Self, state: &State| {
                state.old.step == Step::Fenced
            }),
            Property::sometimes("both lines are archived", |model: &Self, state: &State| {
                let base = state.base(2);
                let has = |entry| state.archive.entries.contains(&entry);
                base > 0
                    && base < model.lsns
                    && (0..base).all(|lsn| has(Entry::Segment(1, lsn)))
                    && (base..model.lsns).all(|lsn| has(Entry::Segment(2, lsn)))
            }),
            Property::sometimes(
                "an unused object is removed",
                |_: &Self, state: &State| matches!(state.old.step, Step::HalfDone(lsn) if state.archive.find(1, lsn).is_none()),
            ),
        ]
    }
}

#[test]
fn archive_with_two_writers_is_one_history() {
    assert_holds(Archiving::new(Mistake::None), 25_000);
}

#[test]
fn replaced_object_changes_an_archived_line() {
    assert_broken(Archiving::new(Mistake::ReplaceObject), OBJECTS);
}

#[test]
fn replaced_object_mixes_lines_in_a_restore() {
    assert_broken(Archiving::new(Mistake::ReplaceObject), RESTORED);
}

#[test]
fn replaced_entry_hides_the_fence() {
    assert_broken(Archiving::new(Mistake::ReplaceEntry), FENCED);
}

#[test]
fn entry_before_its_object_names_nothing() {
    assert_broken(Archiving::new(Mistake::EntryFirst), OBJECTS);
}

#[test]
fn prune_of_an_unfenced_line_removes_objects() {
    assert_broken(Archiving::new(Mistake::PruneUnfenced), OBJECTS);
}

#[test]
fn restore_of_any_line_mixes_lines() {
    assert_broken(Archiving::new(Mistake::RestoreAnyLine), RESTORED);
}
