//! Parsers for logs of other libraries.
//!
//! An unfinished record at the end, which a crash may leave, is reported and left out. Damage is
//! refused with its location. A bad record is damage if an intact record follows it.

mod joined;
mod kaya_wal;
mod source;
#[cfg(test)]
mod tests;
mod wal_db;

use std::path::Path;

use crate::{
    exit::UNREADABLE,
    files::{Input, PathKind, names, path_kind},
    output::{Failure, failure},
    stream::MAGIC,
};

pub(crate) use kaya_wal::KayaWal;
pub(crate) use source::{Source, Torn};
pub(crate) use wal_db::WalDb;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A stream that `highwater export` wrote
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

/// The first bytes of a segment of Highwater.
const OWN_MAGIC: [u8; 8] = *b"\x8bHWAL\r\n\x1a";

fn own_log(path: &Path) -> Failure {
    let path = path.display();
    let message = format!(
        "{path}: a log of highwater itself; use `highwater export {path} | highwater import - DIR`"
    );
    failure(UNREADABLE, message)
}

/// Detects the format of a source from its first bytes and file names.
pub(crate) fn detect(path: &Path) -> Result<Format, Failure> {
    let unknown = || {
        let message = format!(
            "{}: its first bytes are neither those of an exported stream nor of a log of wal-db or \
             kaya-wal; if it is one, name it with --format",
            path.display()
        );
        failure(UNREADABLE, message)
    };
    match path_kind(path)? {
        PathKind::Nothing => Err(failure(UNREADABLE, format!("{}: no such file", path.display()))),
        PathKind::EmptyDirectory => Err(unknown()),
        PathKind::Directory => {
            let names = names(path)?;
            if let Some(first) = names.iter().find(|name| wal_db::segment_index(name).is_some()) {
                let mut begins = [0; 8];
                Input::open(&path.join(first))?.read_at(0, &mut begins)?;
                return if begins == OWN_MAGIC { Err(own_log(path)) } else { Ok(Format::WalDb) };
            }
            kaya_wal::segments(path)?.map(|_| Format::KayaWal).ok_or_else(unknown)
        }
        PathKind::File => {
            let mut begins = [0; 8];
            Input::open(path)?.read_at(0, &mut begins)?;
            if begins == MAGIC {
                Ok(Format::Export)
            } else if begins == OWN_MAGIC {
                Err(own_log(path.parent().unwrap_or(path)))
            } else if begins.starts_with(&kaya_wal::MAGIC) {
                Ok(Format::KayaWal)
            } else if wal_db::begins_with_record(path)? {
                Ok(Format::WalDb)
            } else {
                Err(unknown())
            }
        }
    }
}
