//! The part of a damaged log that opening would keep.
//!
//! A header that opening rejects must not hide a record of this part.

use crate::{
    inspect::Frozen,
    lsn::Lsn,
    options::{Config, OnDamage},
    recovery::{Member, assess},
};

/// The segments that opening takes for the log, with its beginning and end.
#[derive(Debug, Default)]
pub(super) struct OpenableLog {
    /// Oldest first. Empty if opening finds no log.
    pub(super) members: Vec<Member>,
    pub(super) first: Lsn,
    pub(super) end: Lsn,
}

impl OpenableLog {
    /// Judges the log as opening does, if necessary with a cut at the damage.
    pub(super) fn judge(frozen: &Frozen, config: &Config) -> Self {
        let openable =
            [OnDamage::Strict, OnDamage::TruncateAtDamage].into_iter().find_map(|damage| {
                let assessed = assess(frozen, &Config { on_damage: damage, ..*config }).ok()?;
                let judged = assessed.judged.filter(|judged| !judged.chain.members.is_empty())?;
                let (first, end) = (judged.chain.first, judged.end);
                Some(OpenableLog { members: judged.chain.members, first, end })
            });
        openable.unwrap_or_default()
    }

    pub(super) fn has(&self, member: &Member) -> bool {
        self.members.iter().any(|openable| openable.sequence == member.sequence)
    }

    /// Returns whether opening keeps the position.
    pub(super) fn covers(&self, lsn: Lsn) -> bool {
        self.members.first().is_some_and(|oldest| lsn >= oldest.header.base) && lsn < self.end
    }

    /// Returns the end of the part of a segment that opening keeps, or zero.
    pub(super) fn end_of(&self, member: &Member) -> Lsn {
        let mut later =
            self.members.iter().skip_while(|openable| openable.sequence != member.sequence);
        match (later.next(), later.next()) {
            (None, _) => Lsn::ZERO,
            (Some(_), next) => {
                next.map_or(self.end, |next| next.header.base).min(member.file_end())
            }
        }
    }
}
