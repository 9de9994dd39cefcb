//! Encodes and decodes checkpoints: the state of every group, in parts that fit into records. Pure.
//!
//! A checkpoint is a begin record, part records, and an end record that names the begin and counts
//! the parts. Each group's snapshot is taken at its own moment, after the begin record has its LSN.
//! The snapshot contains the LSN `applied`, and includes every record of the group below it. So the
//! replay, which starts at the begin record, applies exactly the records that the snapshot lacks.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{
    lsn::Lsn,
    raft::{
        index::{Index, IndexRun},
        records::{
            record::Purged,
            varint::{Cursor, put, put_optional},
        },
        state::GroupState,
    },
};

const HEAD: u8 = 0;
const RUN: u8 = 1;

/// Packs the fragments of groups into parts.
#[derive(Debug)]
pub(super) struct Packer {
    part_bytes: usize,
    open: Vec<u8>,
    full: VecDeque<Vec<u8>>,
}

impl Packer {
    pub(super) fn new(part_bytes: usize) -> Self {
        Packer { part_bytes, open: Vec::new(), full: VecDeque::new() }
    }

    fn fragment(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.open);
        if self.open.len() >= self.part_bytes {
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    /// Adds the snapshot of a group.
    pub(super) fn add(&mut self, id: u64, state: &GroupState) {
        self.fragment(|to| {
            put(to, id);
            to.push(HEAD);
            for value in [state.applied.as_u64(), state.first, state.next - state.first] {
                put(to, value);
            }
            to.push(u8::from(state.purged.is_some()));
            if let Some(purged) = &state.purged {
                purged.put(to);
            }
            for bytes in [&state.vote, &state.committed, &state.user] {
                put_optional(to, bytes.as_ref());
            }
            put(to, state.terms.len() as u64);
            let mut before = 0;
            for (first, term) in &state.terms {
                put(to, first.wrapping_sub(before));
                put(to, *term);
                before = *first;
            }
        });
        for run in state.index.runs() {
            self.fragment(|to| {
                put(to, id);
                to.push(RUN);
                run.encode(to);
            });
        }
    }

    /// Returns the next full part; if `is_end`, also the last one.
    pub(super) fn take(&mut self, is_end: bool) -> Option<Vec<u8>> {
        let is_rest = is_end && self.full.is_empty() && !self.open.is_empty();
        if is_rest { Some(std::mem::take(&mut self.open)) } else { self.full.pop_front() }
    }
}

/// Collects the groups of a checkpoint while its parts are read.
#[derive(Debug, Default)]
pub(super) struct Unpacker {
    groups: BTreeMap<u64, GroupState>,
}

impl Unpacker {
    pub(super) fn add(&mut self, fragments: Bytes) -> Result<(), &'static str> {
        let mut cursor = Cursor::new(fragments);
        while !cursor.is_at_end() {
            self.fragment(&mut cursor).ok_or("malformed checkpoint part")?;
        }
        Ok(())
    }

    fn fragment(&mut self, cursor: &mut Cursor) -> Option<()> {
        let id = cursor.varint()?;
        match cursor.byte()? {
            HEAD => {
                let state = head(cursor)?;
                self.groups.insert(id, state).is_none().then_some(())
            }
            RUN => {
                let run = IndexRun::decode(cursor)?;
                self.groups.get_mut(&id)?.index.add(run).then_some(())
            }
            _ => None,
        }
    }

    /// Returns the groups, if each is consistent.
    pub(super) fn finish(self) -> Result<BTreeMap<u64, GroupState>, &'static str> {
        let is_sound = |state: &GroupState| {
            let covers = state.index.covers();
            let is_indexed = match covers {
                None => state.is_empty(),
                Some(covers) => covers.start <= state.first && covers.end == state.next,
            };
            let begins = state.terms.front().is_none_or(|(first, _)| *first <= state.first);
            is_indexed && begins && state.is_empty() == state.terms.is_empty()
        };
        if self.groups.values().all(is_sound) {
            Ok(self.groups)
        } else {
            Err("inconsistent checkpoint")
        }
    }
}

fn head(cursor: &mut Cursor) -> Option<GroupState> {
    let applied = Lsn::new(cursor.varint()?);
    let first = cursor.varint()?;
    let next = first.checked_add(cursor.varint()?)?;
    let purged = match cursor.byte()? {
        0 => None,
        1 => Some(Purged::read(cursor)?).filter(|purged| purged.index < u64::MAX),
        _ => return None,
    };
    let (vote, committed, user) = (cursor.optional()?, cursor.optional()?, cursor.optional()?);
    let count = cursor.varint()?;
    let mut terms: VecDeque<(u64, u64)> = VecDeque::new();
    for _ in 0..count {
        let before = terms.back().map_or(0, |(first, _)| *first);
        let first = before.checked_add(cursor.varint()?)?;
        if !terms.is_empty() && first == before {
            return None;
        }
        terms.push_back((first, cursor.varint()?));
    }
    let index = Index::default();
    Some(GroupState {
        first,
        next,
        purged,
        vote,
        committed,
        user,
        terms,
        index,
        applied,
        generation: 0,
    })
}
