//! Surveys the directory of a copy: its segments, and the end of the newest one.
//!
//! Each segment appeared whole, when everything below it was durable. So only the newest one is
//! read.

use highwater::{
    Lsn,
    shipping::{self, Frames, Header, Pause, SegmentId},
};

use crate::{error::Result, positions::bytes_between, standby::disk::Disk};

/// The bytes of one read.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// The start of a file that holds its header.
const HEADER_BLOCK_BYTES: usize = 4096;

/// A segment of a copy.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) header: Header,
}

impl Local {
    pub(crate) fn id(&self) -> SegmentId {
        let header = &self.header;
        let (base, epoch, incarnation) = (header.base(), header.epoch(), header.incarnation());
        SegmentId { base, epoch, incarnation }
    }

    pub(crate) fn name(&self) -> String {
        shipping::file_name(self.header.sequence())
    }
}

/// The segments of a copy and its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copy {
    /// The segments of the log, oldest first.
    pub(crate) segments: Vec<Local>,
    /// Segments that later ones have replaced.
    pub(crate) replaced: Vec<Local>,
    /// The newest file, if it has no header and either holds zeros alone, or a promotion was
    /// promised and interrupted before its commit point. Its frames are also in the other segments.
    pub(crate) unbegun: Option<String>,
    /// Everything below is claimed by a frame or header, so it is durable.
    pub(crate) committed: Lsn,
    /// The end of the last whole unit.
    pub(crate) end: Lsn,
}

/// Reads the headers and the newest segment. `promise` is the highest epoch that the copy has
/// promised. Blocking.
///
/// # Errors
///
/// [`Error::Damaged`](crate::Error::Damaged) if durable bytes of the newest segment, or a header,
/// are damaged.
pub(crate) fn survey(disk: &Disk, promise: u64) -> Result<Copy> {
    let mut sequences: Vec<u64> =
        disk.names()?.iter().filter_map(|name| shipping::sequence_of(name)).collect();
    sequences.sort_unstable();
    let mut copy = Copy::default();
    let newest = sequences.last().copied();
    for sequence in sequences {
        let Some(header) = read_header(disk, sequence)? else {
            let name = shipping::file_name(sequence);
            let own = copy.segments.last().map_or(0, |newest| newest.header.epoch());
            // Without a promise of a higher line no promotion has begun, and the file may hold
            // reported records.
            let is_promised = shipping::line_of(promise) > shipping::line_of(own);
            let is_unbegun = is_promised || is_blank(disk, &name)?;
            if Some(sequence) != newest || !is_unbegun {
                return Err(disk.damaged(&name, 0, "the header is blank or damaged"));
            }
            copy.unbegun = Some(name);
            break;
        };
        // An old leader may have files with higher numbers than the segment that replaced them.
        let is_replaced = copy.segments.iter().any(|kept| {
            kept.header.epoch() > header.epoch() && kept.header.base() <= header.base()
        });
        if is_replaced {
            copy.replaced.push(Local { header });
            continue;
        }
        // A higher epoch replaces everything at or above its base.
        while let Some(last) = copy.segments.last() {
            if last.header.base() < header.base() || last.header.epoch() >= header.epoch() {
                break;
            }
            copy.replaced.extend(copy.segments.pop());
        }
        copy.segments.push(Local { header });
    }
    let Some(newest) = copy.segments.last() else { return Ok(copy) };
    let (committed, end) = end_of(disk, newest)?;
    Ok(Copy { committed, end, ..copy })
}

/// Returns `None` if the file has no intact copy of its header.
fn read_header(disk: &Disk, sequence: u64) -> Result<Option<Header>> {
    let name = shipping::file_name(sequence);
    let mut block = vec![0; HEADER_BLOCK_BYTES];
    let read = disk.open(&name)?.read_at(&mut block, 0)?;
    let block = block.get(..read).unwrap_or_default();
    if Header::is_missing(block) {
        return Ok(None);
    }
    let header = Header::parse(block);
    let header = header.map_err(|reason| disk.damaged(&name, 0, reason))?;
    if header.sequence() != sequence {
        return Err(disk.damaged(&name, 0, "the header belongs to a file with another number"));
    }
    Ok(Some(header))
}

/// Returns whether a file holds zeros alone: a log has prepared it and never begun it.
fn is_blank(disk: &Disk, name: &str) -> Result<bool> {
    let file = disk.open(name)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset)?;
        if read == 0 {
            return Ok(true);
        }
        if buffer.iter().take(read).any(|&byte| byte != 0) {
            return Ok(false);
        }
        offset += read as u64;
    }
}

/// Returns the highest claim and the end of the newest segment.
fn end_of(disk: &Disk, newest: &Local) -> Result<(Lsn, Lsn)> {
    let file = disk.open(&newest.name())?;
    let header = &newest.header;
    let base = header.base();
    let mut frames = Frames::new(header, base, u64::from(u32::MAX));
    let mut committed = base;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let at = frames.next();
        let room = bytes_between(at, header.room_end());
        let wanted = buffer.len().min(room);
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let read = file.read_at(piece, header.offset(at))?;
        // Each claim ends a run, so that the highest one is found.
        let mut start = 0;
        let pause = loop {
            let bytes = buffer.get(start..read).unwrap_or_default();
            let accepted = frames.accept(bytes, committed, |_| {});
            start += accepted.bytes;
            match accepted.pause {
                Pause::Claims(claim) => committed = claim,
                pause => break pause,
            }
        };
        match pause {
            Pause::NeedsBytes(count) if start == 0 => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                if wanted >= room || read < wanted || count <= wanted {
                    break;
                }
                buffer.resize(count, 0);
            }
            Pause::NeedsBytes(_) => {}
            _ => break,
        }
    }
    if frames.unit_end() < committed {
        let offset = header.offset(frames.unit_end());
        return Err(disk.damaged(&newest.name(), offset, "durable bytes are damaged"));
    }
    Ok((committed, frames.unit_end()))
}
