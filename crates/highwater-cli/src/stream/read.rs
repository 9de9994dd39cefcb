//! Reads a stream, and trusts none of its bytes.

use std::{
    fmt,
    io::{self, Read},
};

use bytes::Bytes;

use super::{
    BATCH_BYTES_MAX, ENTRY_BYTES, Entry, EntryKind, HEADER_BYTES, Head, MAGIC, PAYLOAD_BYTES_MAX,
    Positioned, Totals, Unit, VERSION, WITHOUT_POSITIONS,
};

/// The reason why a stream is refused.
#[derive(Debug)]
pub(crate) enum StreamError {
    Io(io::Error),
    /// The first bytes are not those of a stream.
    NotAStream,
    /// Intact, but newer than this release.
    Newer {
        version: u16,
        flags: u16,
    },
    /// The bytes at this offset are not as they were written.
    Damaged {
        offset: u64,
        reason: &'static str,
    },
    /// The stream ends before its trailer.
    Truncated {
        offset: u64,
    },
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Io(error) => write!(f, "reading: {error}"),
            StreamError::NotAStream => write!(f, "not a stream that `highwater export` wrote"),
            StreamError::Newer { version, flags } => write!(
                f,
                "version {version} of the stream with flags {flags:#06x} is newer than this \
                 release knows ({VERSION}); import it with a newer release"
            ),
            StreamError::Damaged { offset, reason } => write!(
                f,
                "damaged at offset {offset}: {reason}; export it again, or fetch another copy"
            ),
            StreamError::Truncated { offset } => write!(
                f,
                "ends at offset {offset}, before its trailer: the copy or the export was cut \
                 short; export it again, or fetch all of it"
            ),
        }
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        StreamError::Io(error)
    }
}

/// Returns units whose checksums are right.
///
/// A later part of the stream may still be refused, so the units are final only at the end.
#[derive(Debug)]
pub(crate) struct StreamReader<R> {
    input: R,
    /// The number of bytes read.
    offset: u64,
    head: Head,
    chain: u32,
    totals: Totals,
    is_finished: bool,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk::<N>);
    found.copied().unwrap_or([0; N])
}

impl<R: Read> StreamReader<R> {
    pub(crate) fn new(input: R) -> Result<Self, StreamError> {
        let head = Head::WITHOUT_POSITIONS;
        let totals = Totals::default();
        let mut reader =
            StreamReader { input, offset: 0, head, chain: 0, totals, is_finished: false };
        let bytes = reader.fill::<HEADER_BYTES>(|read| {
            let begins = read.iter().zip(MAGIC).all(|(read, magic)| *read == magic);
            begins && !read.is_empty()
        })?;
        if array(&bytes, 0) != MAGIC {
            return Err(StreamError::NotAStream);
        }
        let damaged = |reason| StreamError::Damaged { offset: 0, reason };
        let (fields, crc) = bytes.split_at(HEADER_BYTES - 4);
        reader.chain = crc32c::crc32c(fields);
        if reader.chain != u32::from_le_bytes(array(crc, 0)) {
            return Err(damaged("the header does not match its checksum"));
        }
        let version = u16::from_le_bytes(array(fields, 8));
        let flags = u16::from_le_bytes(array(fields, 10));
        if version != VERSION || flags & !WITHOUT_POSITIONS != 0 {
            return Err(StreamError::Newer { version, flags });
        }
        reader.head = Head {
            has_positions: flags & WITHOUT_POSITIONS == 0,
            log_id: array(fields, 16),
            from: u64::from_le_bytes(array(fields, 32)),
            to: u64::from_le_bytes(array(fields, 40)),
        };
        Ok(reader)
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads `N` bytes. If there are fewer, `is_ours` decides whether the stream is truncated or of
    /// another format.
    fn fill<const N: usize>(
        &mut self,
        is_ours: impl Fn(&[u8]) -> bool,
    ) -> Result<[u8; N], StreamError> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while let Some(room @ [_, ..]) = bytes.get_mut(filled..) {
            match self.input.read(room) {
                Ok(0) if is_ours(bytes.get(..filled).unwrap_or_default()) => {
                    return Err(StreamError::Truncated { offset: self.offset });
                }
                Ok(0) => return Err(StreamError::NotAStream),
                Ok(read) => {
                    filled += read;
                    self.offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }

    fn entry(&mut self) -> Result<Entry, StreamError> {
        let offset = self.offset;
        let damaged = |reason| StreamError::Damaged { offset, reason };
        let bytes = self.fill::<ENTRY_BYTES>(|_| true)?;
        let (fields, crc) = bytes.split_at(ENTRY_BYTES - 4);
        self.chain = crc32c::crc32c_append(self.chain, fields);
        if self.chain != u32::from_le_bytes(array(crc, 0)) {
            return Err(damaged("the entry and those before it do not match its checksum"));
        }
        let [code, zeros @ ..] = array::<4>(fields, 0);
        let kind = EntryKind::from_code(code);
        let kind = kind
            .filter(|_| zeros == [0; 3])
            .ok_or_else(|| damaged("the kind of the entry is unknown"))?;
        let payload_bytes = u32::from_le_bytes(array(fields, 4));
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(damaged("a record larger than any log holds"));
        }
        let position = u64::from_le_bytes(array(fields, 8));
        let payload_crc = u32::from_le_bytes(array(fields, 16));
        Ok(Entry { kind, payload_bytes, position, payload_crc })
    }

    /// Reads a payload. The buffer grows with the bytes read, because a wrong length must not
    /// allocate much.
    fn payload(&mut self, entry: &Entry) -> Result<Bytes, StreamError> {
        let offset = self.offset;
        let expected = u64::from(entry.payload_bytes);
        let mut payload = Vec::with_capacity(entry.payload_bytes.min(1 << 20) as usize);
        let read = self.input.by_ref().take(expected).read_to_end(&mut payload)? as u64;
        self.offset += read;
        if read < expected {
            return Err(StreamError::Truncated { offset: self.offset });
        }
        if crc32c::crc32c(&payload) != entry.payload_crc {
            let reason = "the payload does not match its checksum";
            return Err(StreamError::Damaged { offset, reason });
        }
        self.totals.add(entry.kind, entry.payload_bytes, entry.payload_crc);
        Ok(payload.into())
    }

    /// Returns the next record or batch.
    ///
    /// Returns `None` when the trailer is verified and the stream ends after it.
    pub(crate) fn next_unit(&mut self) -> Result<Option<Unit>, StreamError> {
        let mut unit = Unit::default();
        let mut unit_bytes = 0;
        while !self.is_finished {
            let offset = self.offset;
            let damaged = |reason| StreamError::Damaged { offset, reason };
            let entry = self.entry()?;
            match (entry.kind, unit.records.is_empty()) {
                (EntryKind::Trailer, true) => {
                    self.check_end(offset, &entry)?;
                    break;
                }
                (EntryKind::Trailer | EntryKind::Record, false) => {
                    return Err(damaged("a batch has no end"));
                }
                (EntryKind::BatchEnd, true) => return Err(damaged("a batch of one record")),
                _ => {}
            }
            unit_bytes += ENTRY_BYTES as u64 + u64::from(entry.payload_bytes);
            if unit_bytes > BATCH_BYTES_MAX {
                return Err(damaged("a batch larger than any log holds"));
            }
            let payload = self.payload(&entry)?;
            let position = self.head.has_positions.then_some(entry.position);
            unit.records.push(Positioned { position, payload });
            if entry.kind != EntryKind::BatchPart {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    fn check_end(&mut self, offset: u64, trailer: &Entry) -> Result<(), StreamError> {
        let is_right = trailer.position == self.totals.records
            && trailer.payload_crc == self.totals.contents_checksum
            && trailer.payload_bytes == 0;
        if !is_right {
            let reason = "the trailer does not match the entries before it";
            return Err(StreamError::Damaged { offset, reason });
        }
        let end = self.offset;
        let mut one = [0];
        loop {
            match self.input.read(&mut one) {
                Ok(0) => break,
                Ok(_) => {
                    let reason = "there are bytes after the trailer";
                    return Err(StreamError::Damaged { offset: end, reason });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.is_finished = true;
        Ok(())
    }
}
