//! The chain of headers.

use crate::reference::{File, header::Header};

pub struct Chain {
    /// Oldest first.
    pub members: Vec<File>,
    pub first: u64,
    pub is_broken: bool,
}

impl Chain {
    /// Whether a later member of a higher epoch than the one before it says that this file, of a
    /// number between theirs, was left by a cut.
    pub fn has_cut_away(&self, file: &File) -> bool {
        let epoch = |member: &File| member.header.unwrap().epoch;
        let after = self.members.iter().find(|member| member.sequence > file.sequence);
        let before = self.members.iter().rfind(|member| member.sequence < file.sequence);
        after.is_some_and(|after| epoch(after) > before.map_or(1, epoch))
    }

    /// Without the segments that end at `first` or before.
    pub fn begin_at(&mut self, first: u64) {
        self.first = self.first.max(first);
        while self.members.len() > 1 && self.members[1].header.unwrap().base <= self.first {
            self.members.remove(0);
        }
    }
}

/// Back from the newest of `files`, all of which have headers of one log, which begins at `told` or
/// later.
pub fn link_up(files: &[File], told: u64) -> Chain {
    let header = |file: &File| file.header.unwrap();
    let mut members: Vec<File> = files[files.len() - 1..].to_vec();
    let mut dead: Vec<Header> = Vec::new();
    for file in files.iter().rev().skip(1) {
        let (this, after) = (header(file), header(&members[0]));
        if after.previous == Some((this.base, this.incarnation)) && this.base <= after.base {
            members.insert(0, file.clone());
        } else {
            dead.push(this);
        }
    }
    let named = members.iter().map(|file| header(file).first).max().unwrap();
    let first = named.max(told);
    let oldest = header(&members[0]);
    let lacks_predecessor = oldest.previous.is_some() && oldest.base > first;
    let is_explained = |dead: &Header| {
        let replaces =
            |file: &File| header(file).epoch > dead.epoch && header(file).base <= dead.base;
        dead.base < first || members.iter().any(replaces)
    };
    let is_broken = lacks_predecessor || !dead.iter().all(is_explained);
    Chain { members, first, is_broken }
}
