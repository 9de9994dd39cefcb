//! Reading: a whole log as records, and a sealed segment as bytes.

use futures::TryStreamExt;
use highwater::{Lsn, storage::MemoryStorage};

use super::setup::{block_on, options};
use crate::{failure::Failure, load::Load};

pub const RECORDS: u64 = 4_000;
const SEGMENT_BYTES: u64 = 1 << 20;
/// The pieces of 256 bytes in a sealed segment. All its bytes count as used, even those after the
/// last frame.
pub const PIECES: u64 = SEGMENT_BYTES / 256;

pub fn replay(load: &Load) -> Result<(), Failure> {
    let work = async {
        let wal = options().open_with(MemoryStorage::new()).await?;
        let mut end = wal.watermarks().written;
        for _ in 0..RECORDS {
            end = wal.append(&[0x5a; 256]).await?;
        }
        for _ in load.turns() {
            let mut records = wal.replay(..=end);
            let mut count = 0;
            while let Some(record) = records.try_next().await? {
                load.operation();
                count += u64::from(std::hint::black_box(record).payload.len() == 256);
            }
            if count != RECORDS {
                return Err(format!("{count} records instead of {RECORDS}").into());
            }
        }
        Ok(wal.close().await?)
    };
    block_on(work)?
}

pub fn checksum(load: &Load) -> Result<(), Failure> {
    let work = async {
        let options = options().segment_bytes(SEGMENT_BYTES).ring_bytes(64 << 10);
        let wal = options.open_with(MemoryStorage::new()).await?;
        for _ in 0..RECORDS + 1_000 {
            wal.append(&[0x5a; 256]).await?;
        }
        wal.sync().await?;
        let mut sealed = wal.sealed_segments(Lsn::ZERO);
        let segment = sealed.try_next().await?.ok_or("no sealed segment")?;
        if segment.used_bytes() / 256 != PIECES {
            return Err(format!("{} bytes in use", segment.used_bytes()).into());
        }
        for _ in load.turns() {
            (0..PIECES).for_each(|_| load.operation());
            std::hint::black_box(segment.checksum().await?);
        }
        Ok(wal.close().await?)
    };
    block_on(work)?
}
