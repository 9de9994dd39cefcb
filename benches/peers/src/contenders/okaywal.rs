//! okaywal with its defaults: an entry with one chunk per record, and empty checkpoints.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Instant,
};

use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader,
    WriteAheadLog,
};

use crate::{
    log::{Log, Replayed, Writer},
    work::{Assignment, Kind},
};

pub struct OkayWal(WriteAheadLog);

impl Log for OkayWal {
    type Writer<'a> = &'a OkayWal;

    fn open(assignment: &Assignment) -> Self {
        let is_read_back = assignment.verify
            || matches!(assignment.work.kind, Kind::Replay | Kind::Open | Kind::Recover);
        let log = if is_read_back {
            // With the defaults it would recycle records that are read later.
            let configuration = configuration(assignment);
            configuration.open(Reader::default())
        } else {
            WriteAheadLog::recover(&assignment.directory, LogVoid)
        };
        OkayWal(log.unwrap())
    }

    fn writer(&self, _lane: usize) -> &OkayWal {
        self
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        // Recovery is its only way to read in order.
        let reader = Reader::default();
        let chunks = reader.chunks.clone();
        let begun = Instant::now();
        let log = configuration(assignment).open(reader).unwrap();
        for chunk in chunks.lock().unwrap().drain(..) {
            each(&chunk);
        }
        let seconds = begun.elapsed().as_secs_f64();
        log.shutdown().unwrap();
        Replayed { seconds }
    }

    fn close(self) {
        self.0.shutdown().unwrap();
    }
}

/// Returns a configuration without checkpoints, which would drop records that are read later.
fn configuration(assignment: &Assignment) -> Configuration {
    let bytes = assignment.work.bytes.max(1 << 20) * 2;
    Configuration::default_for(&assignment.directory)
        .preallocate_bytes(u32::try_from(bytes).unwrap_or(u32::MAX))
        .checkpoint_after_bytes(u64::MAX)
}

/// Collects the chunks that recovery finds.
#[derive(Debug, Default)]
struct Reader {
    chunks: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LogManager for Reader {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut chunks = self.chunks.lock().unwrap();
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            chunks.push(chunk.read_all()?);
            assert!(chunk.check_crc()?, "a chunk is damaged");
            chunk.skip_remaining_bytes()?;
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Writer for &OkayWal {
    fn append(&mut self, _record: &[u8]) {
        unreachable!("okaywal syncs every entry, because it rolls back uncommitted ones");
    }

    fn commit(&mut self, record: &[u8]) {
        let mut entry = self.0.begin_entry().unwrap();
        entry.write_chunk(record).unwrap();
        entry.commit().unwrap();
    }

    fn batch(&mut self, records: &[Vec<u8>], _sync: bool) {
        let mut entry = self.0.begin_entry().unwrap();
        for record in records {
            entry.write_chunk(record).unwrap();
        }
        entry.commit().unwrap();
    }
}
