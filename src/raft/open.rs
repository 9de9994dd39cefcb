//! Opening: the state of every group, from the newest state record and what follows it.
//!
//! The newest segment's header names a state record; if it doesn't, or there is none any more, the
//! whole log is looked through for the newest that is whole. All of it was synced by the log's own
//! recovery before a byte of it is believed here.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use futures::TryStreamExt;

use crate::{
    error::{Error, Result},
    format::frame::frame_bytes,
    lsn::Lsn,
    raft::{
        cache::TailCache,
        checkpoint::Unpacker,
        keeper::Keeper,
        log::{Group, Opened, RaftLog, Store},
        options::RaftOptions,
        record::{Change, Record},
        state::{At, GroupState},
    },
    sabotage::{self, Sabotage},
    wal::Wal,
};

/// Where the replay begins, and with what.
struct Beginning {
    at: Lsn,
    groups: BTreeMap<u64, GroupState>,
}

/// A state record that is being read.
struct Reading {
    begin: Lsn,
    count: u64,
    groups: Unpacker,
}

pub(super) async fn open(wal: Wal, options: &RaftOptions) -> Result<RaftLog> {
    let core = Arc::clone(wal.core());
    let mut opened = Opened { from_hint: true, ..Opened::default() };
    let hint = core.told_hint().filter(|_| !sabotage::is_on(Sabotage::IgnoreHint));
    let named = match hint {
        Some(hint) => named_state(&wal, hint, options.codec, &mut opened).await?,
        None => None,
    };
    let beginning = match named {
        Some(beginning) => beginning,
        None => {
            opened.from_hint = false;
            newest_state(&wal, options.codec, &mut opened).await?
        }
    };
    let at = beginning.at;
    if !opened.from_hint {
        core.correct_hint(at);
    }
    let states = replay(&wal, beginning, &mut opened).await?;
    let first = wal.watermarks().first;
    for (id, state) in &states {
        if let Some(lsn) = state.index.lowest(state.first).filter(|lsn| *lsn < first) {
            tracing::error!(group = id, %lsn, "an entry's record is gone");
            return Err(Error::BadRaftRecord { lsn, reason: "the record of a live entry is gone" });
        }
    }
    if wal.watermarks().reserved == Lsn::ZERO {
        wal.enqueue(Record::Init { codec: options.codec }.encode()).await?;
    }
    let group = |(id, state)| (id, Arc::new(Group::new(id, state)));
    let keeper = Keeper::new(&core, options.checkpoint_bytes, options.rewrite_above_bytes);
    keeper.opened(at, core.records_end());
    let store = Arc::new(Store {
        wal,
        groups: RwLock::new(states.into_iter().map(group).collect()),
        cache: TailCache::new(options.tail_cache_bytes),
        codec: options.codec,
        keeper,
        opened,
    });
    store.look_for_work(true);
    Ok(RaftLog { store })
}

fn check_codec(found: u64, expected: u64) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::OtherCodec { found, expected }) }
}

/// The state record that a header names; `None` if it isn't there.
async fn named_state(
    wal: &Wal,
    hint: Lsn,
    codec: u64,
    opened: &mut Opened,
) -> Result<Option<Beginning>> {
    let marks = wal.watermarks();
    if hint < marks.first || hint >= marks.reserved {
        return Ok(None);
    }
    let mut reading = None;
    let mut records = wal.replay(hint..);
    loop {
        let record = match records.try_next().await {
            Err(Error::NotABoundary { .. }) => return Ok(None),
            read => read?,
        };
        let Some(record) = record else { return Ok(None) };
        opened.read_bytes += record.payload.len() as u64;
        let decoded = decode(record.lsn, record.payload)?;
        if reading.is_none() && !matches!(decoded, Record::CheckpointBegin { .. }) {
            return Ok(None);
        }
        if let Some(whole) = read_state(&mut reading, record.lsn, decoded, codec)? {
            return Ok(Some(whole));
        }
    }
}

/// The newest state record that is whole, or the beginning of the log; looks at all of it.
async fn newest_state(wal: &Wal, codec: u64, opened: &mut Opened) -> Result<Beginning> {
    let first = wal.watermarks().first;
    let mut newest = (first == Lsn::ZERO).then(|| Beginning { at: first, groups: BTreeMap::new() });
    let mut reading = None;
    let mut records = wal.replay(..);
    while let Some(record) = records.try_next().await? {
        opened.read_bytes += record.payload.len() as u64;
        let decoded = decode(record.lsn, record.payload)?;
        match decoded {
            Record::Init { codec: found } => check_codec(found, codec)?,
            _ if record.lsn == Lsn::ZERO => {
                return Err(bad(record.lsn, "a Raft log begins with its codec"));
            }
            _ => {}
        }
        newest = read_state(&mut reading, record.lsn, decoded, codec)?.or(newest);
    }
    // Nothing but what the log writes for itself.
    let is_blank = wal.watermarks().reserved == first;
    newest
        .or_else(|| is_blank.then(|| Beginning { at: first, groups: BTreeMap::new() }))
        .ok_or_else(|| bad(first, "neither the log's beginning is left nor a state record"))
}

/// Takes a record if it is a part of a state record; gives that when it is whole.
fn read_state(
    reading: &mut Option<Reading>,
    lsn: Lsn,
    record: Record,
    codec: u64,
) -> Result<Option<Beginning>> {
    match record {
        Record::CheckpointBegin { codec: found } => {
            check_codec(found, codec)?;
            *reading = Some(Reading { begin: lsn, count: 0, groups: Unpacker::default() });
        }
        Record::CheckpointPart { begin, number, fragments } => {
            // One that was cut short by a crash is followed by parts of the next.
            let own = reading.as_mut().filter(|reading| reading.begin.as_u64() == begin);
            if let Some(reading) = own {
                if number != reading.count {
                    return Err(bad(lsn, "a state record with a part missing"));
                }
                reading.count += 1;
                reading.groups.add(fragments).map_err(|reason| bad(lsn, reason))?;
            }
        }
        Record::CheckpointEnd { begin, count } => {
            if let Some(whole) = reading.take_if(|reading| reading.begin.as_u64() == begin) {
                if whole.count != count {
                    return Err(bad(lsn, "a state record with a part missing"));
                }
                let groups = whole.groups.finish().map_err(|reason| bad(lsn, reason))?;
                return Ok(Some(Beginning { at: whole.begin, groups }));
            }
        }
        Record::Init { .. } | Record::Group(..) => {}
    }
    Ok(None)
}

/// Applies what follows to what a state record says.
async fn replay(
    wal: &Wal,
    beginning: Beginning,
    opened: &mut Opened,
) -> Result<BTreeMap<u64, GroupState>> {
    let Beginning { at, mut groups } = beginning;
    let pictured: std::collections::BTreeSet<u64> = groups.keys().copied().collect();
    // A group that was removed while the state record was written is in no picture, and what stands
    // of it before its removal need not make sense alone.
    let mut senseless: BTreeMap<u64, Error> = BTreeMap::new();
    let mut records = wal.replay(at..);
    while let Some(record) = records.try_next().await? {
        let bytes = record.payload.len() as u64;
        opened.read_bytes += bytes;
        let lsn = record.lsn;
        let Record::Group(id, change) = decode(lsn, record.payload)? else { continue };
        let state = groups.entry(id).or_default();
        if lsn < state.applied {
            continue;
        }
        if matches!(change, Change::Remove) {
            senseless.remove(&id);
        }
        if let Err(refused) = state.apply(&change, At { lsn, bytes: frame_bytes(bytes) }) {
            let error = bad(lsn, "a change that the group can't have made");
            tracing::error!(group = id, %lsn, ?refused, "a record makes no sense");
            if pictured.contains(&id) {
                return Err(error);
            }
            senseless.entry(id).or_insert(error);
        }
    }
    match senseless.into_values().next() {
        Some(error) => Err(error),
        None => Ok(groups),
    }
}

fn decode(lsn: Lsn, payload: bytes::Bytes) -> Result<Record> {
    Record::decode(payload).map_err(|reason| bad(lsn, reason))
}

fn bad(lsn: Lsn, reason: &'static str) -> Error {
    Error::BadRaftRecord { lsn, reason }
}
