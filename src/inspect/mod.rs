//! Shows the contents of a log: its segments, their frames, and the verdict of opening.
//!
//! Nothing here changes a byte or takes the log's lock. So a log can be inspected while it is
//! written, by any user who may read its files. Opening uses the same judge for its verdict. All
//! calls block; on a runtime, call them from `spawn_blocking`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
//! use highwater::{Wal, inspect::{self, Verdict}};
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("log");
//! let wal = Wal::open(&path).await?;
//! wal.append(b"look at me").await?;
//! wal.close().await?;
//!
//! let found = inspect::directory(&path)?;
//! assert_eq!(found.verdict, Verdict::Closed);
//! let contents = found.segments[0].contents.unwrap();
//! assert_eq!((contents.record_count, contents.control_count), (1, 1));
//!
//! let snapshot = inspect::Snapshot::of_directory(&path)?;
//! let segment = &snapshot.outline().segments[0];
//! for frame in snapshot.frames(segment)? {
//!     let frame = frame?;
//!     println!("{} {:?}: {:?}", frame.lsn, frame.kind, frame.payload);
//! }
//! # Ok(()) }
//! ```

mod found;
mod frames;
mod frozen;
mod outline;

use std::{path::Path, sync::Arc, time::Duration};

pub use crate::format::frame::frame_bytes;
pub use found::{
    CompressedRecords, Contents, Header, HeaderState, Inspection, KeptCut, Link, LogId, Problem,
    ProblemKind, Role, Segment, Slot, Verdict,
};
pub use frames::{Compressed, Frame, FrameKind, FrameState, Frames};
pub(crate) use frozen::Frozen;

use crate::{
    error::{Error, Result},
    format::scan::Stop,
    inspect::{
        frames::Counted,
        outline::{RECORD_BYTES_MAX, outline, reader},
    },
    lsn::Lsn,
    options::{Config, OnDamage},
    recovery::{RecoveryReport, assess},
    replay::damage,
    storage::{ReadOnlyDirectory, Storage},
    turn::pause,
};

/// The number of looks before a torn tail counts. It may be a write in progress.
const LOOKS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(3);

/// Reads the whole log in `directory`, and judges it.
///
/// # Errors
///
/// [`Error::Io`] if the directory cannot be read; [`Error::NotALog`] if it holds other files and no
/// segment. The result reports any other problem.
pub fn directory(directory: impl AsRef<Path>) -> Result<Inspection> {
    Ok(Snapshot::of_directory(directory)?.read_all(&mut |_| {}))
}

/// Reads the whole log in `storage`, and judges it.
///
/// # Errors
///
/// As [`directory`].
pub fn storage(storage: impl Storage) -> Result<Inspection> {
    Ok(Snapshot::of_storage(storage)?.read_all(&mut |_| {}))
}

/// The state of a log at one moment, without later appends.
///
/// Creating a snapshot reads the headers and the unsynced end, as opening does. Everything else is
/// read on request.
#[derive(Debug)]
pub struct Snapshot {
    frozen: Frozen,
    outline: Inspection,
}

impl Snapshot {
    /// Takes a snapshot of the log in a directory.
    ///
    /// # Errors
    ///
    /// As [`directory`].
    pub fn of_directory(directory: impl AsRef<Path>) -> Result<Self> {
        let path = directory.as_ref();
        let opened = ReadOnlyDirectory::open(path).map_err(|error| {
            Error::io("opening directory", path.display().to_string(), None, error)
        })?;
        let opened = Arc::new(opened);
        let mut look = 0;
        loop {
            look += 1;
            let storage: Arc<dyn Storage> = Arc::<ReadOnlyDirectory>::clone(&opened);
            let mut snapshot = Self::of(storage)?;
            let verdict = &snapshot.outline.verdict;
            let is_settled = !matches!(verdict, Verdict::TornTail(_) | Verdict::Refused(_));
            snapshot.outline.owner_pid = opened.owner_pid();
            if is_settled || snapshot.outline.owner_pid.is_none() || look == LOOKS {
                return Ok(snapshot);
            }
            pause(PAUSE);
        }
    }

    /// Takes a snapshot of the log in a storage.
    ///
    /// # Errors
    ///
    /// As [`directory`].
    pub fn of_storage(storage: impl Storage) -> Result<Self> {
        Self::of(Arc::new(storage))
    }

    fn of(storage: Arc<dyn Storage>) -> Result<Self> {
        let frozen = Frozen::new(storage)?;
        let outline = outline(&frozen)?;
        Ok(Snapshot { frozen, outline })
    }

    /// Returns the state of the log as known from its headers and its unsynced end.
    ///
    /// The outline has no counts of frames, and no damage below the synced position.
    #[must_use]
    pub fn outline(&self) -> &Inspection {
        &self.outline
    }

    /// Returns the plan of a repair: the report of opening with [`OnDamage::TruncateAtDamage`].
    ///
    /// Reads the whole log, and changes nothing. A repair cuts durable data only if the report's
    /// `cut` has a `durable`.
    ///
    /// # Errors
    ///
    /// The errors with which opening refuses the log in this case, too: [`Error::Io`],
    /// [`Error::UnsupportedVersion`], [`Error::UnsupportedFrame`].
    pub fn plan_repair(&self) -> Result<RecoveryReport> {
        let on_damage = OnDamage::TruncateAtDamage;
        let config = Config { record_bytes_max: RECORD_BYTES_MAX, on_damage, ..Config::default() };
        Ok(assess(&self.frozen, &config)?.report)
    }

    /// Returns the approximate number of bytes that [`read_all`](Snapshot::read_all) reads.
    #[must_use]
    pub fn bytes_to_read(&self) -> u64 {
        let readable = self.outline.segments.iter().filter(|segment| segment.header.is_some());
        readable.map(|segment| segment.used_bytes).sum()
    }

    /// Returns the frames of a segment of the [`outline`](Snapshot::outline).
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if the segment has no valid header, because its frames cannot be
    ///   checked.
    /// - [`Error::Io`].
    pub fn frames(&self, segment: &Segment) -> Result<Frames> {
        match reader(&self.frozen, segment)? {
            Some(reader) => Ok(Frames::new(reader)),
            None => Err(Error::Corrupt {
                directory: String::new(),
                lsn: segment.end.unwrap_or_default(),
                segment: segment.name.clone(),
                offset: 0,
                synced: self.outline.committed.unwrap_or_default(),
                reason: "without a header its frames cannot be checked".to_owned(),
            }),
        }
    }

    /// Reads the whole log. Counts the frames, and finds damage that opening does not search for.
    ///
    /// Calls `progress` with the number of bytes of each step.
    #[must_use]
    pub fn read_all(&self, progress: &mut dyn FnMut(u64)) -> Inspection {
        let mut inspection = self.outline.clone();
        let mut damage = Vec::new();
        for segment in &mut inspection.segments {
            let walked = match reader(&self.frozen, segment) {
                Ok(Some(reader)) => frames::count(&reader, progress).map(|found| (reader, found)),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match walked {
                Ok((reader, Counted { contents, stop, withheld })) => {
                    segment.contents = Some(contents);
                    let synced = self.outline.committed.unwrap_or_default();
                    if let Some((lsn, why)) = withheld.filter(|_| segment.role == Role::Log) {
                        damage.push(self::damage(&reader, lsn, why, synced));
                    }
                    let lsn = contents.end;
                    if segment.role == Role::Log && self.is_too_early(segment, lsn, stop) {
                        // The walk reached the end of the file, but not of the segment.
                        let stop =
                            if stop == Stop::SegmentEnd { Stop::PartialHeader } else { stop };
                        // The segment may have been truncated and its file reused during the walk.
                        // Then the file has lost its name.
                        let gone = self::reader(&self.frozen, segment).err();
                        let damaged = || self::damage(&reader, lsn, stop, synced);
                        damage.push(gone.unwrap_or_else(damaged));
                    }
                }
                Err(error) => damage.push(error),
            }
        }
        inspection.damage = damage.iter().map(Problem::from).collect();
        if let Verdict::Refused(problem) = &inspection.verdict {
            inspection
                .damage
                .retain(|damage| (damage.lsn, &damage.segment) != (problem.lsn, &problem.segment));
        }
        inspection
    }

    /// Returns whether a reader would continue at `lsn`, where a walk stopped.
    fn is_too_early(&self, segment: &Segment, lsn: Lsn, stop: Stop) -> bool {
        let followed = self.outline.segments.iter().any(|other| {
            other.role == Role::Log && other.header.map(|header| header.base) == segment.end
        });
        let base = segment.header.map_or(Lsn::ZERO, |header| header.base);
        match (self.outline.end, segment.end.filter(|_| followed)) {
            (Some(end), _) if base >= end => false,
            (Some(end), Some(successor)) => lsn < end.min(successor),
            (Some(end), None) => lsn < end,
            (None, Some(successor)) => lsn < successor,
            (None, None) => matches!(stop, Stop::Unsupported { .. }),
        }
    }
}
