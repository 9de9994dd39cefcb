//! Logs of other libraries, read by parsers of our own.
//!
//! What a crash leaves unfinished at the end is told and left out. Damage is refused with its place:
//! where intact records stand behind a place that isn't, it is not the end.

mod joined;
mod kaya_wal;
#[cfg(test)]
mod tests;
mod wal_db;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{
    check::{CORRUPT, UNREADABLE},
    files::{Found, Input, look, names},
    output::{Failure, told},
    stream::{MAGIC, Unit},
};

pub(crate) use kaya_wal::KayaWal;
pub(crate) use wal_db::WalDb;

/// Where records come from, one unit after the other.
pub(crate) trait Source {
    fn next_unit(&mut self) -> Result<Option<Unit>, Failure>;

    /// How much of it was read.
    fn read_bytes(&self) -> u64;

    /// All of it, or 0 if that isn't known.
    fn total_bytes(&self) -> u64;

    /// The checksum of the contents that were read, if the source has one.
    fn contents_checksum(&self) -> Option<u32> {
        None
    }

    /// What was left out at its end, once that was reached.
    fn torn(&self) -> Option<&Torn> {
        None
    }

    /// What else is worth knowing.
    fn notes(&self) -> &[String] {
        &[]
    }
}

/// What a crash left unfinished at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Torn {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) reason: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// What `highwater export` wrote
    Export,
    /// A log of wal-db 1.x: its file, or its directory of segments
    WalDb,
    /// A log of kaya-wal 0.2 (format version 1): a segment, or the directory of them
    KayaWal,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Export => "export",
            Format::WalDb => "wal-db",
            Format::KayaWal => "kaya-wal",
        }
    }
}

/// How a segment of this library begins.
const OWN_MAGIC: [u8; 8] = *b"\x8bHWAL\r\n\x1a";

fn own_log(path: &Path) -> Failure {
    let path = path.display();
    let message = format!(
        "{path}: a log of highwater itself; use `highwater export {path} | highwater import - DIR`"
    );
    told(UNREADABLE, message)
}

/// What stands at a path, as far as its first bytes and names tell.
pub(crate) fn detect(path: &Path) -> Result<Format, Failure> {
    let unknown = || {
        let message = format!(
            "{}: neither an exported stream nor a log of wal-db or kaya-wal as far as its beginning \
             tells; if it is one, name it with --format",
            path.display()
        );
        told(UNREADABLE, message)
    };
    match look(path)? {
        Found::Nothing => Err(told(UNREADABLE, format!("{}: no such file", path.display()))),
        Found::EmptyDirectory => Err(unknown()),
        Found::Directory => {
            let names = names(path)?;
            if let Some(first) = names.iter().find(|name| wal_db::segment_index(name).is_some()) {
                let mut begins = [0; 8];
                Input::open(&path.join(first))?.read_at(0, &mut begins)?;
                return if begins == OWN_MAGIC { Err(own_log(path)) } else { Ok(Format::WalDb) };
            }
            kaya_wal::segments(path)?.map(|_| Format::KayaWal).ok_or_else(unknown)
        }
        Found::File => {
            let mut begins = [0; 8];
            Input::open(path)?.read_at(0, &mut begins)?;
            if begins == MAGIC {
                Ok(Format::Export)
            } else if begins == OWN_MAGIC {
                Err(own_log(path.parent().unwrap_or(path)))
            } else if begins.starts_with(&kaya_wal::MAGIC) {
                Ok(Format::KayaWal)
            } else if wal_db::begins_one(path)? {
                Ok(Format::WalDb)
            } else {
                Err(unknown())
            }
        }
    }
}

/// A place in a file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
}

impl Spot {
    fn file(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn damaged(spot: &Spot, reason: &str) -> Failure {
    let message = format!(
        "{}, offset {}: {reason}; this is damage and not a torn end; restore the file from a backup, \
         or, if nothing from there on is wanted, cut a copy of the log there and import that",
        spot.path.display(),
        spot.offset
    );
    told(CORRUPT, message)
}
