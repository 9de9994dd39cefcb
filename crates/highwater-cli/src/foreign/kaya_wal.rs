//! Segments of kaya-wal, version 1 of its format: puts, deletes and no-ops.
//!
//! All integers are little-endian. The fields of a record are magic (4), version (2), header length
//! (2), flags (2), type (2), LSN (8), sequence (8), payload length (4), CRC-32C of the header with
//! zeros in this field (4), CRC-32C of the payload (4), payload. The payload of a put is key length
//! (4), value length (4), key, value. The payload of a delete is key length (4), key. The payload
//! of a no-op is empty. LSNs count records. Segments are named by 16 hexadecimal digits.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use highwater::typed::{Change, KeyValue};
use tokio_util::codec::Encoder;

use crate::{
    exit::{UNREADABLE, UNSUPPORTED},
    files::{Input, PathKind, names, path_kind},
    foreign::{
        joined::Joined,
        source::{Source, Torn, damaged},
    },
    output::{Failure, failure},
    stream::{Positioned, Unit},
};

pub(super) const MAGIC: [u8; 4] = 0x4b41_5941u32.to_le_bytes();
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 40;
/// The largest record that a log of Highwater can hold.
const PAYLOAD_BYTES_MAX: u32 = 1 << 30;

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

fn is_header(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return false };
    let mut covered = *header;
    if let Some(field) = covered.get_mut(32..36) {
        field.fill(0);
    }
    header.starts_with(&MAGIC) && crc32c::crc32c(&covered) == u32::from_le_bytes(array(header, 32))
}

/// Returns the segments of a directory, or of its subdirectory `wal`, in order.
pub(super) fn segments(path: &Path) -> Result<Option<Vec<PathBuf>>, Failure> {
    let number = |name: &str| {
        let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    };
    for directory in [path.to_path_buf(), path.join("wal")] {
        if path_kind(&directory)? != PathKind::Directory {
            continue;
        }
        let mut found: Vec<_> = names(&directory)?
            .into_iter()
            .filter_map(|name| Some((number(&name)?, directory.join(name))))
            .collect();
        found.sort();
        if !found.is_empty() {
            return Ok(Some(found.into_iter().map(|(_, path)| path).collect()));
        }
    }
    Ok(None)
}

#[derive(Debug)]
pub(crate) struct KayaWal {
    /// The unread segments with their lengths, the next one last.
    segments: Vec<(u64, PathBuf)>,
    bytes: Joined,
    next: u64,
    next_lsn: Option<u64>,
    read_bytes: u64,
    total_bytes: u64,
    torn: Option<Torn>,
}

struct Header {
    kind: u16,
    lsn: u64,
    payload_bytes: u32,
    payload_crc: u32,
}

impl KayaWal {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let paths = match path_kind(path)? {
            PathKind::Directory | PathKind::EmptyDirectory => segments(path)?.ok_or_else(|| {
                failure(
                    UNREADABLE,
                    format!("{}: there is no segment of a log in it", path.display()),
                )
            })?,
            PathKind::File | PathKind::Nothing => vec![path.to_path_buf()],
        };
        let mut segments = Vec::new();
        for path in paths.into_iter().rev() {
            segments.push((Input::open(&path)?.bytes, path));
        }
        Ok(KayaWal {
            total_bytes: segments.iter().map(|(bytes, _)| bytes).sum(),
            segments,
            bytes: Joined::default(),
            next: 0,
            next_lsn: None,
            read_bytes: 0,
            torn: None,
        })
    }

    fn damaged(&self, reason: &str) -> Failure {
        damaged(&self.bytes.location(self.next), reason)
    }

    /// Decides whether a bad record is the torn end or damage.
    fn stop(&mut self, reason: &'static str) -> Result<Option<Unit>, Failure> {
        let (at, end) = (self.next, self.bytes.end());
        let header = |bytes: &[u8]| (bytes.len() == HEADER_BYTES).then_some(HEADER_BYTES);
        if let Some(behind) = self.bytes.search(at + 1, HEADER_BYTES, header, is_header)? {
            let reason = format!("{reason}, and a record's header follows at offset {behind}");
            return Err(self.damaged(&reason));
        }
        if let Some((_, path)) = self.segments.iter().rev().find(|(bytes, _)| *bytes > 0) {
            let later = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(self.damaged(&format!("{reason}, and segment {later} follows")));
        }
        let location = self.bytes.location(at);
        self.torn = Some(Torn { file: location.file(), offset: at, bytes: end - at, reason });
        self.next = end;
        Ok(None)
    }

    fn check(&self, header: &[u8]) -> Result<Header, Failure> {
        let two = |at| u16::from_le_bytes(array(header, at));
        let (version, length, flags, kind) = (two(4), two(6), two(8), two(10));
        if version != VERSION || usize::from(length) != HEADER_BYTES || flags != 0 || kind > 3 {
            let location = self.bytes.location(self.next);
            let message = format!(
                "{}, offset {}: intact, but its version ({version}), kind ({kind}) or flags \
                 ({flags:#06x}) are unknown; nothing was imported",
                location.path.display(),
                location.offset
            );
            return Err(failure(UNSUPPORTED, message));
        }
        let lsn = u64::from_le_bytes(array(header, 12));
        match self.next_lsn {
            Some(expected) if expected != lsn => {
                Err(self.damaged(&format!("record {lsn} is in the place of record {expected}")))
            }
            _ => Ok(Header {
                kind,
                lsn,
                payload_bytes: u32::from_le_bytes(array(header, 28)),
                payload_crc: u32::from_le_bytes(array(header, 36)),
            }),
        }
    }
}

/// Decodes the change of a payload, and encodes it as `highwater::typed::KeyValue` does.
fn change(kind: u16, payload: &[u8]) -> Option<Bytes> {
    let key_bytes = usize::try_from(u32::from_le_bytes(array(payload, 0))).ok()?;
    let change = match kind {
        1 => {
            let value_bytes = usize::try_from(u32::from_le_bytes(array(payload, 4))).ok()?;
            let (key, value) = payload.get(8..)?.split_at_checked(key_bytes)?;
            if value.len() != value_bytes {
                return None;
            }
            Change::put(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
        }
        2 => {
            let key = payload.get(4..).filter(|key| key.len() == key_bytes)?;
            Change::delete(Bytes::copy_from_slice(key))
        }
        3 if payload.is_empty() => Change::NoOp,
        _ => return None,
    };
    let mut encoded = BytesMut::new();
    KeyValue.encode(&change, &mut encoded).ok()?;
    Some(encoded.freeze())
}

impl Source for KayaWal {
    fn next_unit(&mut self) -> Result<Option<Unit>, Failure> {
        while self.next >= self.bytes.end() {
            let Some((_, path)) = self.segments.pop() else { return Ok(None) };
            self.bytes = Joined::default();
            self.bytes.push(0, Input::open(&path)?);
            self.next = 0;
        }
        let (at, end) = (self.next, self.bytes.end());
        let bytes = self.bytes.bytes(at, HEADER_BYTES)?.to_vec();
        if bytes.len() < HEADER_BYTES {
            return self.stop("a record's header is cut short");
        }
        if !is_header(&bytes) {
            return self.stop("a record's header does not match its checksum");
        }
        let header = self.check(&bytes)?;
        let record_bytes = u64::from(header.payload_bytes) + HEADER_BYTES as u64;
        if record_bytes > end - at {
            return self.stop("a record is cut short");
        }
        if header.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(self.damaged("a record above 1 GiB"));
        }
        let count = usize::try_from(header.payload_bytes).unwrap_or(usize::MAX);
        let payload = self.bytes.bytes(at + HEADER_BYTES as u64, count)?;
        if crc32c::crc32c(payload) != header.payload_crc {
            return self.stop("a record does not match its checksum");
        }
        let Some(payload) = change(header.kind, payload) else {
            return Err(self.damaged("a record whose parts don't fit its length"));
        };
        self.next = at + record_bytes;
        self.read_bytes += record_bytes;
        self.next_lsn = Some(header.lsn.wrapping_add(1));
        Ok(Some(Unit { records: vec![Positioned { position: Some(header.lsn), payload }] }))
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }
}
