//! Reads many records by their positions at once.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    format::{
        frame::Kind,
        scan::{FrameCheck, Stop, frame_at, to_usize},
    },
    lsn::Lsn,
    pipeline::Core,
    replay::{
        live::{GUESS_BYTES, LiveSource},
        source::{CHUNK_BYTES, ChunkSource},
    },
};

/// Reads the records at `lsns`, in this order. Blocking.
///
/// Records that are near each other share one read.
pub(crate) fn read_records(core: &Arc<Core>, lsns: &[Lsn], epoch: u64) -> Result<Vec<Bytes>> {
    /// Two records with a smaller distance share a read.
    const NEAR_BYTES: u64 = 64 << 10;
    let mut payloads = Vec::with_capacity(lsns.len());
    let mut needed = 0;
    while let Some(&from) = lsns.get(payloads.len()) {
        let rest = lsns.get(payloads.len()..).unwrap_or_default();
        let mut last = from;
        let near = |next: Lsn, last: Lsn| {
            next > last && next.since(last) <= NEAR_BYTES && next.since(from) <= CHUNK_BYTES
        };
        for &next in rest.iter().skip(1) {
            if !near(next, last) {
                break;
            }
            last = next;
        }
        let source = LiveSource::new(core, from, epoch);
        let until = core.written().get();
        let reader = source.segment_at(from, until)?;
        let room = until.min(reader.place.end).since(from);
        let asked = (last.since(from) + GUESS_BYTES).max(needed).min(room);
        let bytes = Bytes::from(reader.read(from, asked)?);
        needed = 0;
        for &lsn in rest {
            let offset = to_usize(lsn.since(from));
            if lsn < from || lsn > last || lsn >= reader.place.end || offset > bytes.len() {
                break;
            }
            let part = bytes.slice(offset..);
            let stop = match frame_at(&part, lsn, &reader.place) {
                FrameCheck::Frame { frame, .. } if frame.kind != Kind::Control => {
                    let end = frame.payload_start + frame.payload_bytes;
                    let stored = part.slice(frame.payload_start..end);
                    match reader.payload(&frame, stored) {
                        Ok(payload) => {
                            payloads.push(payload);
                            continue;
                        }
                        Err(stop) => stop,
                    }
                }
                FrameCheck::Frame { .. } => return Err(Error::NotABoundary { lsn }),
                FrameCheck::NeedsBytes(_) if lsn > from => break,
                // Read again with more bytes, if the file has them.
                FrameCheck::NeedsBytes(more) if asked < more && more <= room => {
                    needed = more;
                    break;
                }
                FrameCheck::NeedsBytes(_) => Stop::PartialHeader,
                FrameCheck::Stop(stop) => stop,
            };
            return Err(source.explain(&reader, lsn, until, stop));
        }
    }
    Ok(payloads)
}
