//! What a cut of durable data keeps, and the manifest that tells of it: both are durable before the
//! cut is.

use std::fmt::Write;

use crate::{
    error::{Error, Result},
    format::header::SegmentHeader,
    recovery::{
        judged::Leftover,
        rebuild::{clear, sync_dir},
        report::{Cut, DurableCut},
        salvage::Salvage,
        survey::list,
    },
    sabotage::{self, Sabotage},
    segments::Sequence,
    storage::{Storage, read_full, write_full},
};

const CHUNK_BYTES: usize = 256 << 10;

/// Writes the manifest, then copies the segment in which the cut is, then sets aside what the cut
/// doesn't explain. Gives the names of the copies.
///
/// Nothing is taken away before the manifest is durable. What it tells of may not have been done
/// yet: then the cut wasn't either, and the next opening makes a cut of its own.
pub(super) fn keep_copies(
    storage: &dyn Storage,
    salvage: &Salvage,
    cut: &Cut,
    header: &SegmentHeader,
) -> Result<Vec<String>> {
    let Some(durable) = &cut.durable else { return Ok(Vec::new()) };
    let strays = salvage.strays.iter().map(|&sequence| Leftover {
        sequence,
        is_kept: true,
        is_empty: false,
    });
    let strays: Vec<Leftover> = strays.collect();
    let early = sabotage::is_on(Sabotage::CutBeforeManifest);
    let mut kept = if early { clear(storage, &strays)? } else { Vec::new() };
    write_manifest(storage, &durable.manifest, &manifest(cut, durable, header))?;
    if let Some(sequence) = salvage.copied {
        kept.push(copy(storage, sequence)?);
        sync_dir(storage)?;
    }
    if !early {
        kept.extend(clear(storage, &strays)?);
    }
    Ok(kept)
}

/// A second name for the segment, or where there is no such thing a copy: the segment itself goes
/// when the log's beginning is truncated that far. Nobody writes to it again: it isn't the newest.
fn copy(storage: &dyn Storage, sequence: Sequence) -> Result<String> {
    let from = sequence.file_name();
    let to = sequence.free_cut_name(&list(storage)?);
    if storage.link(&from, &to).is_ok() {
        return Ok(to);
    }
    let failed = |operation, name: &str, error| Error::io(operation, name.to_owned(), None, error);
    let source = storage.open(&from).map_err(|error| failed("opening", &from, error))?;
    let copy = storage.create(&to).map_err(|error| failed("creating", &to, error))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = read_full(source.as_ref(), &mut buffer, offset);
        let read = read.map_err(|error| failed("reading", &from, error))?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        let written = write_full(copy.as_ref(), bytes, offset);
        written.map_err(|error| failed("writing", &to, error).or_no_space(&to, offset))?;
        offset += read as u64;
    }
    copy.sync_all().map_err(|error| failed("syncing", &to, error))?;
    Ok(to)
}

fn write_manifest(storage: &dyn Storage, name: &str, text: &str) -> Result<()> {
    let failed = |operation, error| Error::io(operation, name.to_owned(), None, error);
    let file = storage.create(name).map_err(|error| failed("creating", error))?;
    write_full(file.as_ref(), text.as_bytes(), 0)
        .map_err(|error| failed("writing", error).or_no_space(name, text.len() as u64))?;
    file.sync_all().map_err(|error| failed("syncing", error))?;
    sync_dir(storage)
}

/// The manifest: `docs/FORMAT.md` has its lines.
fn manifest(cut: &Cut, durable: &DurableCut, header: &SegmentHeader) -> String {
    let mut text = String::from("highwater cut 1\n");
    let id: String = header.log_id.iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    });
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Into memory: it can't fail.
        let _ = writeln!(text, "{key}: {value}");
    };
    line("log", &id);
    line("lsn", &cut.lsn);
    line("synced", &durable.synced);
    line("segment", &if cut.segment.is_empty() { "none" } else { &cut.segment });
    line("offset", &cut.offset);
    line("reason", &cut.reason);
    line("refusal", &durable.refusal);
    line("bytes", &cut.bytes);
    line("intact frames", &cut.valid_frame_count);
    line("intact records", &durable.record_count);
    line("new segment", &durable.new_segment);
    line("epoch", &header.epoch);
    line("incarnation", &format!("{:016x}", header.incarnation));
    line("unix ms", &header.created_unix_ms);
    for copy in &durable.copies {
        let how = if copy.is_still_there { ", and stays up to the cut" } else { "" };
        line("kept", &format!("{} as {}{how}", copy.segment, copy.kept_as));
    }
    text.push_str("end\n");
    text
}
