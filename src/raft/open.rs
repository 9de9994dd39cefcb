//! Opens a Raft log: restores every group from a checkpoint and the later records.
//!
//! The header of the newest segment names a checkpoint. If it names none, or a checkpoint that is
//! gone, the whole log is searched for the newest complete one. The recovery of the log underneath
//! syncs all bytes before this file uses them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, RwLock},
};

use futures::TryStreamExt;

use crate::{
    error::Error as LogError,
    format::frame::frame_bytes,
    lsn::Lsn,
    pipeline::embed::{recorded_hint, replace_hint},
    raft::{
        cache::TailCache,
        checkpoint::Unpacker,
        error::{Error, Result},
        log::RaftLog,
        options::RaftOptions,
        records::record::{GroupChange, RaftRecord},
        state::{GroupState, RecordLocation},
        store::{LockedGroup, OpeningStats, Store},
        upkeep::{progress::Upkeep, schedule::start_upkeep_if_due},
    },
    sabotage::{self, Sabotage},
    storage::Storage,
    wal::Wal,
};

impl RaftLog {
    /// Opens the log in `directory` with the default options. Creates the directory and the log if
    /// they do not exist.
    ///
    /// # Errors
    ///
    /// As [`RaftOptions::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftOptions::open`].
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        RaftOptions::default().open(directory).await
    }

    /// Returns the default options.
    pub fn options() -> RaftOptions {
        RaftOptions::default()
    }
}

impl RaftOptions {
    /// Opens the log in `directory`. Creates the directory and the log if they do not exist.
    ///
    /// All state that the log reports from then on was synced before this resolves.
    ///
    /// # Errors
    ///
    /// - Those of [`Options::open`](crate::Options::open). Damage to durable data is
    ///   [`Corrupt`](LogError::Corrupt): the log never opens as a shorter one.
    /// - [`Error::OtherCodec`], and [`Error::BadRecord`] if it is not a Raft log.
    /// - [`InvalidOption`](LogError::InvalidOption) if the options of the log underneath allow it
    ///   to be truncated at damage, or to drop records by itself.
    ///
    /// # Cancel safety
    ///
    /// As [`Options::open`](crate::Options::open).
    pub async fn open(self, directory: impl AsRef<Path>) -> Result<RaftLog> {
        self.check()?;
        let wal = self.wal.clone().open(directory).await?;
        restore(wal, &self).await
    }

    /// Opens the log in any storage.
    ///
    /// # Errors
    ///
    /// As [`RaftOptions::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftOptions::open`].
    pub async fn open_with(self, storage: impl Storage) -> Result<RaftLog> {
        self.check()?;
        let wal = self.wal.clone().open_with(storage).await?;
        restore(wal, &self).await
    }

    /// Rejects [`OnDamage::TruncateAtDamage`](crate::OnDamage::TruncateAtDamage), a
    /// [`Retention`](crate::Retention), and [`OnBudget::DropOldest`](crate::OnBudget::DropOldest).
    ///
    /// A node that forgets a vote may vote twice, and one that forgets entries may elect a leader
    /// that lacks committed ones. So a Raft log drops only what its groups have purged.
    fn check(&self) -> Result<()> {
        if self.wal.cuts_damage() {
            return Err(Error::Log(LogError::InvalidOption {
                option: "on_damage",
                value: 1,
                reason: "a Raft log is never truncated at damage: open it strictly, and let a \
                         damaged node rejoin",
            }));
        }
        if self.wal.drops_by_itself() {
            return Err(Error::Log(LogError::InvalidOption {
                option: "retention",
                value: 1,
                reason: "a Raft log drops nothing by itself: it is purged by its groups, and a \
                         budget may only refuse or wait",
            }));
        }
        Ok(())
    }
}

/// The position at which the replay starts, and the groups there.
struct ReplayStart {
    lsn: Lsn,
    groups: BTreeMap<u64, GroupState>,
}

/// A checkpoint of which some parts have been read.
struct PartialCheckpoint {
    begin: Lsn,
    part_count: u64,
    groups: Unpacker,
}

/// Restores the groups of a log that the recovery has opened.
async fn restore(wal: Wal, options: &RaftOptions) -> Result<RaftLog> {
    let log = Arc::clone(wal.core());
    let mut stats = OpeningStats { from_hint: true, ..OpeningStats::default() };
    let hint = recorded_hint(&log).filter(|_| !sabotage::is_on(Sabotage::IgnoreHint));
    let hinted = match hint {
        Some(hint) => checkpoint_at(&wal, hint, options.codec, &mut stats).await?,
        None => None,
    };
    let start = match hinted {
        Some(start) => start,
        None => {
            stats.from_hint = false;
            newest_checkpoint(&wal, options.codec, &mut stats).await?
        }
    };
    let begin = start.lsn;
    if !stats.from_hint {
        replace_hint(&log, begin);
    }
    let states = replay(&wal, start, &mut stats).await?;
    check_live_records(&wal, &states)?;
    if wal.watermarks().reserved == Lsn::ZERO {
        wal.enqueue(RaftRecord::Init { codec: options.codec }.encode()).await?;
    }
    let group = |(id, state)| (id, Arc::new(LockedGroup::new(id, state)));
    let upkeep = Upkeep::new(&log, options.checkpoint_bytes, options.rewrite_above_bytes);
    upkeep.start_at(begin, log.records_end());
    let store = Arc::new(Store {
        wal,
        groups: RwLock::new(states.into_iter().map(group).collect()),
        cache: TailCache::new(options.tail_cache_bytes),
        codec: options.codec,
        upkeep,
        opening: stats,
    });
    start_upkeep_if_due(&store, true);
    Ok(RaftLog { store })
}

/// Checks that the record of every live entry is in the log.
fn check_live_records(wal: &Wal, states: &BTreeMap<u64, GroupState>) -> Result<()> {
    let first = wal.watermarks().first;
    for (id, state) in states {
        if let Some(lsn) = state.index.lowest(state.first).filter(|lsn| *lsn < first) {
            let log = wal.core().storage().location();
            tracing::error!(log, group = id, %lsn, "the record of a live entry is missing");
            return Err(bad(lsn, "the record of a live entry is missing"));
        }
    }
    Ok(())
}

fn check_codec(found: u64, expected: u64) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::OtherCodec { found, expected }) }
}

/// Reads the checkpoint that begins at `hint`. Returns `None` if there is no complete one.
async fn checkpoint_at(
    wal: &Wal,
    hint: Lsn,
    codec: u64,
    stats: &mut OpeningStats,
) -> Result<Option<ReplayStart>> {
    let marks = wal.watermarks();
    if hint < marks.first || hint >= marks.reserved {
        return Ok(None);
    }
    let mut partial = None;
    let mut records = wal.replay(hint..);
    loop {
        let record = match records.try_next().await {
            Err(LogError::NotABoundary { .. }) => return Ok(None),
            read => read?,
        };
        let Some(record) = record else { return Ok(None) };
        stats.read_bytes += record.payload.len() as u64;
        let decoded = decode(record.lsn, record.payload)?;
        if partial.is_none() && !matches!(decoded, RaftRecord::CheckpointBegin { .. }) {
            return Ok(None);
        }
        if let Some(start) = add_to_checkpoint(&mut partial, record.lsn, decoded, codec)? {
            return Ok(Some(start));
        }
    }
}

/// Searches the whole log for the newest complete checkpoint. Returns the beginning of the log if
/// there is none.
async fn newest_checkpoint(wal: &Wal, codec: u64, stats: &mut OpeningStats) -> Result<ReplayStart> {
    let first = wal.watermarks().first;
    let mut newest =
        (first == Lsn::ZERO).then(|| ReplayStart { lsn: first, groups: BTreeMap::new() });
    let mut partial = None;
    let mut records = wal.replay(..);
    while let Some(record) = records.try_next().await? {
        stats.read_bytes += record.payload.len() as u64;
        let decoded = decode(record.lsn, record.payload)?;
        match decoded {
            RaftRecord::Init { codec: found } => check_codec(found, codec)?,
            _ if record.lsn == Lsn::ZERO => {
                return Err(bad(record.lsn, "the first record must name the codec"));
            }
            _ => {}
        }
        newest = add_to_checkpoint(&mut partial, record.lsn, decoded, codec)?.or(newest);
    }
    // The log holds no user record, only its own control records.
    let is_blank = wal.watermarks().reserved == first;
    newest
        .or_else(|| is_blank.then(|| ReplayStart { lsn: first, groups: BTreeMap::new() }))
        .ok_or_else(|| bad(first, "the log has lost its beginning and has no complete checkpoint"))
}

/// Adds a record to a checkpoint, if it belongs to one. Returns the checkpoint when it is complete.
fn add_to_checkpoint(
    partial: &mut Option<PartialCheckpoint>,
    lsn: Lsn,
    record: RaftRecord,
    codec: u64,
) -> Result<Option<ReplayStart>> {
    const PART_MISSING: &str = "a part of a checkpoint is missing";
    match record {
        RaftRecord::CheckpointBegin { codec: found } => {
            check_codec(found, codec)?;
            let groups = Unpacker::default();
            *partial = Some(PartialCheckpoint { begin: lsn, part_count: 0, groups });
        }
        RaftRecord::CheckpointPart { begin, number, fragments } => {
            // After a checkpoint that a crash cut short, parts of the next one follow.
            let own = partial.as_mut().filter(|partial| partial.begin.as_u64() == begin);
            if let Some(partial) = own {
                if number != partial.part_count {
                    return Err(bad(lsn, PART_MISSING));
                }
                partial.part_count += 1;
                partial.groups.add(fragments).map_err(|reason| bad(lsn, reason))?;
            }
        }
        RaftRecord::CheckpointEnd { begin, count } => {
            if let Some(whole) = partial.take_if(|partial| partial.begin.as_u64() == begin) {
                if whole.part_count != count {
                    return Err(bad(lsn, PART_MISSING));
                }
                let groups = whole.groups.finish().map_err(|reason| bad(lsn, reason))?;
                return Ok(Some(ReplayStart { lsn: whole.begin, groups }));
            }
        }
        RaftRecord::Init { .. } | RaftRecord::Group(..) => {}
    }
    Ok(None)
}

/// Applies the records from `start` on to the groups of its checkpoint.
async fn replay(
    wal: &Wal,
    start: ReplayStart,
    stats: &mut OpeningStats,
) -> Result<BTreeMap<u64, GroupState>> {
    let ReplayStart { lsn, mut groups } = start;
    let in_checkpoint: BTreeSet<u64> = groups.keys().copied().collect();
    // A group that was removed while the checkpoint was written is not in the checkpoint. Its
    // records before the removal may depend on a state that is not known.
    let mut rejected: BTreeMap<u64, Error> = BTreeMap::new();
    let mut records = wal.replay(lsn..);
    while let Some(record) = records.try_next().await? {
        let bytes = record.payload.len() as u64;
        stats.read_bytes += bytes;
        let lsn = record.lsn;
        let RaftRecord::Group(id, change) = decode(lsn, record.payload)? else { continue };
        let state = groups.entry(id).or_default();
        if lsn < state.applied {
            continue;
        }
        if matches!(change, GroupChange::Remove) {
            rejected.remove(&id);
        }
        if let Err(rejection) =
            state.apply(&change, RecordLocation { lsn, bytes: frame_bytes(bytes) })
        {
            let error = bad(lsn, "impossible change of the group");
            let log = wal.core().storage().location();
            tracing::error!(log, group = id, %lsn, ?rejection, "impossible change of a group");
            if in_checkpoint.contains(&id) {
                return Err(error);
            }
            rejected.entry(id).or_insert(error);
        }
    }
    match rejected.into_values().next() {
        Some(error) => Err(error),
        None => Ok(groups),
    }
}

fn decode(lsn: Lsn, payload: bytes::Bytes) -> Result<RaftRecord> {
    RaftRecord::decode(payload).map_err(|reason| bad(lsn, reason))
}

fn bad(lsn: Lsn, reason: &'static str) -> Error {
    Error::BadRecord { lsn, reason }
}
