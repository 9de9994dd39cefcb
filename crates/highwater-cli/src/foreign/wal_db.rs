//! Logs of wal-db 1.x: records without gaps, in one file or in equal segments.
//!
//! A record is the CRC-32C of the rest, the payload's length (both 4 bytes, little-endian) and the
//! payload. Its position is its offset. Segments are named by 20 digits, from 0, and split the
//! bytes anywhere. The file `head` (8 bytes and their CRC-32C) holds the start of a log that was
//! truncated at the front.

use std::path::Path;

use bytes::Bytes;

use crate::{
    exit::UNREADABLE,
    files::{Input, PathKind, names, path_kind, read_small_file},
    foreign::{
        joined::Joined,
        source::{Source, Torn, damaged},
    },
    output::{Failure, failure},
    stream::{Positioned, Unit},
};

const HEADER_BYTES: usize = 8;
/// The largest record that a log of Highwater can hold.
const PAYLOAD_BYTES_MAX: u32 = 1 << 30;

fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Returns the length of the record that begins with this header.
fn record_bytes(header: &[u8]) -> Option<usize> {
    let payload_bytes = word(header, 4);
    if header.len() < HEADER_BYTES || payload_bytes > PAYLOAD_BYTES_MAX {
        return None;
    }
    usize::try_from(payload_bytes).ok()?.checked_add(HEADER_BYTES)
}

fn is_intact(record: &[u8]) -> bool {
    let covered = record.get(4..).unwrap_or_default();
    record.len() >= HEADER_BYTES && crc32c::crc32c(covered) == word(record, 0)
}

/// Parses the index from the name of a segment.
pub(super) fn segment_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let is_index = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_index)
}

/// Returns whether a file begins with an intact record.
pub(super) fn begins_with_record(path: &Path) -> Result<bool, Failure> {
    let mut bytes = Joined::default();
    bytes.push(0, Input::open(path)?);
    let Some(count) = record_bytes(bytes.bytes(0, HEADER_BYTES)?) else { return Ok(false) };
    if count as u64 > bytes.end() {
        return Ok(false);
    }
    Ok(is_intact(bytes.bytes(0, count)?))
}

#[derive(Debug)]
pub(crate) struct WalDb {
    bytes: Joined,
    next: u64,
    torn: Option<Torn>,
    notes: Vec<String>,
}

impl WalDb {
    /// `segment_bytes` is the size of the segments, if the files don't show it.
    pub(crate) fn open(path: &Path, segment_bytes: Option<u64>) -> Result<Self, Failure> {
        let mut log = WalDb { bytes: Joined::default(), next: 0, torn: None, notes: Vec::new() };
        if !matches!(path_kind(path)?, PathKind::Directory | PathKind::EmptyDirectory) {
            log.bytes.push(0, Input::open(path)?);
            return Ok(log);
        }
        let names = names(path)?;
        let mut segments = Vec::new();
        for name in &names {
            if let Some(index) = segment_index(name) {
                segments.push((index, Input::open(&path.join(name))?));
            }
        }
        let size = segment_size(path, &segments, segment_bytes)?;
        for (index, input) in segments {
            let start = index.checked_mul(size).filter(|start| *start >= log.bytes.end());
            let Some(start) = start else {
                let message = format!(
                    "{}: {} bytes, more than a segment of {size} bytes has; name their size with \
                     --source-segment-bytes",
                    input.path.display(),
                    input.bytes
                );
                return Err(failure(UNREADABLE, message));
            };
            log.bytes.push(start, input);
        }
        log.find_head(path)?;
        Ok(log)
    }

    /// Moves to the first record.
    fn find_head(&mut self, path: &Path) -> Result<(), Failure> {
        let marker = read_small_file(&path.join("head"));
        let head = marker.as_deref().map(|marker| {
            let (position, crc) = (marker.first_chunk::<8>(), word(marker, 8));
            let position = position.filter(|_| marker.len() >= 12);
            position
                .filter(|bytes| crc32c::crc32c(*bytes) == crc)
                .map(|bytes| u64::from_le_bytes(*bytes))
        });
        let start = self.bytes.start();
        match head {
            Some(Some(head)) if head < start || head > self.bytes.end() => {
                let location = self.bytes.location(start);
                let reason = format!(
                    "the log begins at position {head}, but its segments hold {start} to {}",
                    self.bytes.end()
                );
                return Err(damaged(&location, &reason));
            }
            Some(Some(head)) => {
                self.next = head;
                return Ok(());
            }
            None if start == 0 => return Ok(()),
            Some(None) if start == 0 => {
                self.notes.push(
                    "the marker `head` is damaged: all records in the segments are imported, also \
                     truncated ones"
                        .to_owned(),
                );
                return Ok(());
            }
            None | Some(None) => {}
        }
        // The first segment may begin within a record.
        let found = self.bytes.search(start, HEADER_BYTES, record_bytes, is_intact)?;
        self.next = found.unwrap_or(start);
        self.notes.push(format!(
            "the marker `head` is missing or damaged: the log is read from the first whole record on, \
             at position {}; records before the true head may be among them",
            self.next
        ));
        Ok(())
    }

    /// Decides whether a bad record is the torn end or damage.
    fn stop(&mut self, reason: &'static str) -> Result<Option<Unit>, Failure> {
        let (at, end) = (self.next, self.bytes.end());
        let location = self.bytes.location(at);
        let behind = self.bytes.search(at + 1, HEADER_BYTES, record_bytes, is_intact)?;
        if let Some(behind) = behind {
            let found = self.bytes.location(behind);
            let reason = format!(
                "{reason}, and an intact record follows ({}, offset {})",
                found.file(),
                found.offset
            );
            return Err(damaged(&location, &reason));
        }
        self.torn =
            Some(Torn { file: location.file(), offset: location.offset, bytes: end - at, reason });
        self.next = end;
        Ok(None)
    }
}

/// Returns the size of each segment except the last.
fn segment_size(
    path: &Path,
    segments: &[(u64, Input)],
    given: Option<u64>,
) -> Result<u64, Failure> {
    let full = segments
        .split_last()
        .and_then(|(_, others)| others.iter().map(|(_, input)| input.bytes).max());
    match (given.or(full), segments) {
        (Some(size), _) => Ok(size),
        (None, [(0, input)]) => Ok(input.bytes.max(1)),
        (None, []) => Err(failure(
            UNREADABLE,
            format!("{}: there is no segment of a log in it", path.display()),
        )),
        (None, _) => {
            let message = format!(
                "{}: only one segment is left, so its place in the log is unknown; name the \
                 segment size of the log with --source-segment-bytes",
                path.display()
            );
            Err(failure(UNREADABLE, message))
        }
    }
}

impl Source for WalDb {
    fn next_unit(&mut self) -> Result<Option<Unit>, Failure> {
        let (at, end) = (self.next, self.bytes.end());
        if at >= end {
            return Ok(None);
        }
        let header = self.bytes.bytes(at, HEADER_BYTES)?;
        let (is_whole, payload_bytes) = (header.len() == HEADER_BYTES, word(header, 4));
        let Some(count) = record_bytes(header) else {
            let reason =
                if is_whole { "a length above 1 GiB" } else { "a record's header is cut short" };
            return self.stop(reason);
        };
        // Checked before the record is read, so that a wrong length allocates nothing.
        if u64::from(payload_bytes) + HEADER_BYTES as u64 > end - at {
            return self.stop("a record is cut short");
        }
        let record = self.bytes.bytes(at, count)?;
        if record.len() < count {
            return self.stop("a record is cut short");
        }
        if !is_intact(record) {
            return self.stop("a record does not match its checksum");
        }
        let payload = Bytes::copy_from_slice(record.get(HEADER_BYTES..).unwrap_or_default());
        self.next = at + count as u64;
        Ok(Some(Unit { records: vec![Positioned { position: Some(at), payload }] }))
    }

    fn read_bytes(&self) -> u64 {
        self.next - self.bytes.start().min(self.next)
    }

    fn total_bytes(&self) -> u64 {
        self.bytes.end() - self.bytes.start()
    }

    fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
