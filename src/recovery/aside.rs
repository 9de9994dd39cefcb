//! Removes leftovers or sets them aside, and writes the manifest of a damage cut.
//!
//! The manifest and all copies are durable before a cut of durable data is committed.

use std::{fmt::Write, sync::Arc};

use crate::{
    error::{Error, Result},
    format::header::SegmentHeader,
    recovery::{
        judged::DamageCut,
        leftovers::Leftover,
        report::{Cut, DurableCut, RecoveryReport, Warning},
        survey::{Survey, list},
    },
    sabotage::{self, Sabotage},
    segments::{SegmentCopy, SegmentFile, Sequence, sync_directory},
    storage::{Storage, uninterrupted, write_full},
};

const CHUNK_BYTES: u64 = 256 << 10;

/// Removes leftovers, or renames them if they hold bytes of a cut. Returns the new names.
///
/// A leftover that cannot be removed becomes a warning, because the log is whole without its
/// removal and the next opening tries again.
pub(super) fn clear(
    storage: &dyn Storage,
    leftovers: &[Leftover],
    report: &mut RecoveryReport,
) -> Result<Vec<String>> {
    clear_or(storage, leftovers, |_, name, error| {
        report.warnings.push(Warning::NotRemoved { name, reason: error.to_string() });
        Ok(())
    })
}

/// As [`clear`], but a file that cannot be removed is an error.
fn clear_all(storage: &dyn Storage, leftovers: &[Leftover]) -> Result<Vec<String>> {
    clear_or(storage, leftovers, |operation, name, error| {
        Err(Error::io(operation, name, None, error))
    })
}

fn clear_or(
    storage: &dyn Storage,
    leftovers: &[Leftover],
    mut failed: impl FnMut(&'static str, String, std::io::Error) -> Result<()>,
) -> Result<Vec<String>> {
    let mut new_names = Vec::new();
    if leftovers.is_empty() {
        return Ok(new_names);
    }
    let mut taken = list(storage)?;
    for Leftover { sequence, is_set_aside, .. } in leftovers {
        let name = sequence.file_name();
        if !is_set_aside {
            if let Err(error) = storage.remove(&name) {
                failed("removing", name, error)?;
            }
            continue;
        }
        let free = sequence.free_cut_name(&taken);
        match storage.rename(&name, &free) {
            Ok(()) => {
                taken.push(free.clone());
                new_names.push(free);
            }
            Err(error) => failed("renaming", name, error)?,
        }
    }
    sync_directory(storage)?;
    Ok(new_names)
}

/// Removes the files that an earlier process kept for reuse as segments.
pub(super) fn remove_recycled(
    storage: &dyn Storage,
    survey: &Survey,
    report: &mut RecoveryReport,
) -> Result<()> {
    for name in &survey.recycled {
        if let Err(error) = storage.remove(name) {
            let (name, reason) = (name.clone(), error.to_string());
            report.warnings.push(Warning::NotRemoved { name, reason });
        }
    }
    if survey.recycled.is_empty() { Ok(()) } else { sync_directory(storage) }
}

/// Keeps the bytes that a cut of durable data takes out of the log. Returns the names of the
/// copies.
///
/// 1. Writes the manifest. Nothing is removed before it is durable.
/// 2. Copies the segment in which the cut is.
/// 3. Sets aside the strays.
///
/// *Crash before the cut's commit point:* the manifest lists copies that may not exist. The next
/// opening plans another cut.
pub(super) fn keep_copies(
    storage: &dyn Storage,
    damage_cut: &DamageCut,
    cut: &Cut,
    header: &SegmentHeader,
) -> Result<Vec<String>> {
    let Some(durable) = &cut.durable else { return Ok(Vec::new()) };
    let strays = damage_cut.strays.iter().map(|&sequence| Leftover {
        sequence,
        is_set_aside: true,
        is_empty: false,
        is_harmless: false,
    });
    let strays: Vec<Leftover> = strays.collect();
    let early = sabotage::is_on(Sabotage::CutBeforeManifest);
    let mut copies = if early { clear_all(storage, &strays)? } else { Vec::new() };
    write_manifest(storage, &durable.manifest, &manifest(cut, durable, header))?;
    if let Some(sequence) = damage_cut.copied {
        copies.push(copy(storage, sequence)?);
        sync_directory(storage)?;
    }
    if !early {
        copies.extend(clear_all(storage, &strays)?);
    }
    Ok(copies)
}

/// Gives the segment a second name, or copies it if the storage has no links.
///
/// A later truncation of the beginning may remove the segment, but not the copy. A link is safe,
/// because only the newest segment is written to.
fn copy(storage: &dyn Storage, sequence: Sequence) -> Result<String> {
    let to = sequence.free_cut_name(&list(storage)?);
    if storage.link(&sequence.file_name(), &to).is_ok() {
        return Ok(to);
    }
    let from = Arc::new(SegmentFile::open(storage, sequence)?);
    let copy = SegmentCopy::create(from, storage, &to)?;
    let mut offset = 0;
    loop {
        match copy.copy(offset, CHUNK_BYTES)? {
            0 => break,
            bytes => offset += bytes,
        }
    }
    copy.sync()?;
    Ok(to)
}

fn write_manifest(storage: &dyn Storage, name: &str, text: &str) -> Result<()> {
    let failed = |operation, error| Error::io(operation, name.to_owned(), None, error);
    let file = storage.create(name).map_err(|error| failed("creating", error))?;
    write_full(file.as_ref(), text.as_bytes(), 0)
        .map_err(|error| failed("writing", error).or_no_space(name, text.len() as u64))?;
    uninterrupted(|| file.sync_all()).map_err(|error| failed("syncing", error))?;
    sync_directory(storage)
}

/// Returns the text of the manifest. `docs/FORMAT.md` describes its lines.
fn manifest(cut: &Cut, durable: &DurableCut, header: &SegmentHeader) -> String {
    let mut text = String::from("highwater cut 1\n");
    let id: String = header.log_id.iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    });
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a `String` cannot fail.
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
