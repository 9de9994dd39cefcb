//! Logs of wal-db 1.x: records back to back, in one file or in segments of one length.
//!
//! A record is the CRC-32C of what follows, the payload's length (both 4 bytes, little-endian) and the
//! payload. Its position is its offset. Segments are named by 20 digits, from 0, and split the bytes
//! anywhere; `head` (8 bytes and their CRC-32C) tells where a log begins whose front was dropped.

use std::path::Path;

use bytes::Bytes;

use crate::{
    check::UNREADABLE,
    files::{Found, Input, look, names, small},
    foreign::{Source, Torn, damaged, joined::Joined},
    output::{Failure, told},
    stream::{Positioned, Unit},
};

const HEADER_BYTES: usize = 8;
/// No record of a log here is larger.
const PAYLOAD_BYTES_MAX: u32 = 1 << 30;

fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// How long the record is that begins with these bytes.
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

/// The index that a segment's name tells.
pub(super) fn segment_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let is_index = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_index)
}

/// Whether a file begins with a record.
pub(super) fn begins_one(path: &Path) -> Result<bool, Failure> {
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
    /// `segment_bytes`: the size of segments, where it can't be told from the files.
    pub(crate) fn open(path: &Path, segment_bytes: Option<u64>) -> Result<Self, Failure> {
        let mut log = WalDb { bytes: Joined::default(), next: 0, torn: None, notes: Vec::new() };
        if !matches!(look(path)?, Found::Directory | Found::EmptyDirectory) {
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
                return Err(told(UNREADABLE, message));
            };
            log.bytes.push(start, input);
        }
        log.find_head(path)?;
        Ok(log)
    }

    /// Goes to the first record.
    fn find_head(&mut self, path: &Path) -> Result<(), Failure> {
        let marker = small(&path.join("head"));
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
                let spot = self.bytes.spot(start);
                let reason = format!(
                    "the log begins at position {head} and the segments that are there hold {start} to {}",
                    self.bytes.end()
                );
                return Err(damaged(&spot, &reason));
            }
            Some(Some(head)) => {
                self.next = head;
                return Ok(());
            }
            None if start == 0 => return Ok(()),
            Some(None) if start == 0 => {
                self.notes.push(
                    "the marker `head` is damaged: all records that are there are imported, also \
                     any that were truncated"
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

    /// No intact record stands at the next place: the end, or damage?
    fn stop(&mut self, reason: &'static str) -> Result<Option<Unit>, Failure> {
        let (at, end) = (self.next, self.bytes.end());
        let spot = self.bytes.spot(at);
        let behind = self.bytes.search(at + 1, HEADER_BYTES, record_bytes, is_intact)?;
        if let Some(behind) = behind {
            let found = self.bytes.spot(behind);
            let reason = format!(
                "{reason}, and an intact record stands behind it ({}, offset {})",
                found.file(),
                found.offset
            );
            return Err(damaged(&spot, &reason));
        }
        self.torn = Some(Torn { file: spot.file(), offset: spot.offset, bytes: end - at, reason });
        self.next = end;
        Ok(None)
    }
}

/// How many bytes each segment but the last has.
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
        (None, []) => {
            Err(told(UNREADABLE, format!("{}: no segment of a log is in it", path.display())))
        }
        (None, _) => {
            let message = format!(
                "{}: only one segment is left and its place in the log can't be told from it; name \
                 the size that the log was opened with: --source-segment-bytes",
                path.display()
            );
            Err(told(UNREADABLE, message))
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
        // Before anything is allocated for it.
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
