//! Opening: the state of every group, from the newest state record and what follows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use futures::TryStreamExt;

use crate::{
    error::{Error, Result},
    raft::{
        cache::TailCache,
        log::{Group, RaftLog, Store},
        options::RaftOptions,
        record::Record,
        state::{At, GroupState},
    },
    wal::Wal,
};

pub(super) async fn open(wal: Wal, options: &RaftOptions) -> Result<RaftLog> {
    let mut states: BTreeMap<u64, GroupState> = BTreeMap::new();
    let mut records = wal.replay(..);
    let mut is_new = true;
    while let Some(record) = records.try_next().await? {
        is_new = false;
        let lsn = record.lsn;
        let bad = |reason| Error::BadRaftRecord { lsn, reason };
        let bytes = record.payload.len() as u64;
        match Record::decode(record.payload).map_err(bad)? {
            Record::Init { codec } if codec != options.codec => {
                return Err(Error::OtherCodec { found: codec, expected: options.codec });
            }
            Record::Group(group, change) => {
                let state = states.entry(group).or_default();
                state.apply(&change, At { lsn, bytes }).map_err(|refused| refused.of(group))?;
            }
            _ => {}
        }
    }
    if is_new {
        wal.append(Record::Init { codec: options.codec }.encode()).await?;
    }
    let groups =
        states.into_iter().map(|(id, state)| (id, Arc::new(Group::new(id, state)))).collect();
    Ok(RaftLog {
        store: Arc::new(Store {
            wal,
            groups: RwLock::new(groups),
            cache: TailCache::new(options.tail_cache_bytes),
            codec: options.codec,
        }),
    })
}
