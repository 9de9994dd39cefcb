//! The chain of segments, linked by their headers.

use crate::reference::{file::File, header::Header};

pub struct Chain {
    /// The segments, oldest first.
    pub members: Vec<File>,
    pub first: u64,
    pub is_broken: bool,
}

impl Chain {
    /// Returns whether a cut left this file behind: the next member after its number has a higher
    /// epoch than the member before it.
    pub fn is_left_by_cut(&self, file: &File) -> bool {
        let epoch = |member: &File| member.header.unwrap().epoch;
        let after = self.members.iter().find(|member| member.sequence > file.sequence);
        let before = self.members.iter().rfind(|member| member.sequence < file.sequence);
        after.is_some_and(|after| epoch(after) > before.map_or(1, epoch))
    }

    /// Moves the beginning to `first`, and drops the segments that end at or before it.
    pub fn begin_at(&mut self, first: u64) {
        self.first = self.first.max(first);
        while self.members.len() > 1 && self.members[1].header.unwrap().base <= self.first {
            self.members.remove(0);
        }
    }
}

/// Builds the chain, backwards from the newest file.
///
/// All files have headers of the same log. The log begins at `recorded_first` or later.
pub fn link_up(files: &[File], recorded_first: u64) -> Chain {
    let header = |file: &File| file.header.unwrap();
    let mut members: Vec<File> = files[files.len() - 1..].to_vec();
    let mut unlinked: Vec<Header> = Vec::new();
    for file in files.iter().rev().skip(1) {
        let (this, after) = (header(file), header(&members[0]));
        if after.previous == Some((this.base, this.incarnation)) && this.base <= after.base {
            members.insert(0, file.clone());
        } else {
            unlinked.push(this);
        }
    }
    let first_in_headers = members.iter().map(|file| header(file).first).max().unwrap();
    let first = first_in_headers.max(recorded_first);
    let oldest = header(&members[0]);
    let lacks_predecessor = oldest.previous.is_some() && oldest.base > first;
    let is_explained = |unlinked: &Header| {
        let replaces =
            |file: &File| header(file).epoch > unlinked.epoch && header(file).base <= unlinked.base;
        unlinked.base < first || members.iter().any(replaces)
    };
    let is_broken = lacks_predecessor || !unlinked.iter().all(is_explained);
    Chain { members, first, is_broken }
}
