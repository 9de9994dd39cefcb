//! The settings of a log, checked once, before anything is touched.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How the space of a new segment is prepared.
///
/// Measured on ext4, a 256-byte durable commit costs about half as much in prepared space as in a
/// file that grows with each append, because the file's metadata no longer changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preallocation {
    /// [`ZeroFill`](Preallocation::ZeroFill), but for a segment that follows one in which each flush
    /// covered 256 KiB or more on average: there the zeros would cost more than they save, and the
    /// space is only reserved. The default.
    #[default]
    Adaptive,
    /// Writes zeros ahead of need, in the background. The fastest commits, and nearly twice the
    /// bytes written to the device.
    ZeroFill,
    /// Asks the file system to reserve the blocks (`fallocate`), where it can. No extra bytes; each
    /// commit into space used for the first time also commits the file system's journal.
    Reserve,
    /// Only sets the file's length: sparse. A full disk is then found while writing, which poisons
    /// the log, instead of ahead of need.
    Sparse,
}

/// What opening does about damage to what was durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// Refuses with [`Error::Corrupt`] and changes nothing. The default: what was acknowledged is
    /// gone, and what to do about it is for people to decide.
    #[default]
    Strict,
    /// Cuts the log where the damage begins, and keeps a copy of all that it cuts.
    ///
    /// Opening then reads the whole log, so that no damage is left in it. What stands before the
    /// first place that isn't intact stays, byte for byte; what stands behind is set aside under
    /// `….wal.cut` names, intact records included, with a manifest (`….cut.manifest`) that says what,
    /// why and from where. A log whose oldest segment is missing is cut at its beginning. The LSNs
    /// behind the cut are used again, in a higher epoch. Nothing is cut because of a read error, of a
    /// later release's records, or of records above `record_bytes_max`: opening refuses as ever.
    TruncateAtDamage,
}

/// Whether records are compressed, each by itself, and how.
///
/// A record is stored compressed if that makes its frame shorter and its payload has at least
/// [`compression_bytes_min`](crate::Options::compression_bytes_min) bytes; else as it is. What was
/// written before, in whatever way, is read all the same: this is about new records only. Reading
/// needs the feature of the codec, not this option.
///
/// ```
/// # #[cfg(feature = "lz4")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Compression, Wal, storage::MemoryStorage};
///
/// let options = Wal::options().compression(Compression::Lz4);
/// let wal = options.open_with(MemoryStorage::new()).await?;
/// let lsn = wal.append(vec![b'a'; 4096]).await?;
/// assert!(wal.watermarks().reserved.as_u64() < 100, "bytes taken in the log");
/// let record = wal.replay(lsn..).try_next().await?.expect("the record");
/// assert_eq!(record.payload, vec![b'a'; 4096]);
/// # Ok(()) }
/// # #[cfg(not(feature = "lz4"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Records are stored as they are. The default.
    #[default]
    None,
    /// LZ4, in pure Rust: the quicker one.
    #[cfg(feature = "lz4")]
    Lz4,
    /// Zstandard, through its C library: smaller and slower than LZ4. Each thread that appends
    /// keeps a context of its own, the larger the higher the level.
    #[cfg(feature = "zstd")]
    Zstd {
        /// From 1, the fastest, to 22, the smallest. The library's own default is 3.
        level: u8,
    },
}

/// The checked settings that the layers below the handle work with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) segment_bytes: u64,
    pub(crate) ring_bytes: u64,
    pub(crate) record_bytes_max: u64,
    pub(crate) batch_bytes_max: u64,
    pub(crate) preallocation: Preallocation,
    /// How many files of segments that were dropped are kept.
    pub(crate) recycle_segments: usize,
    pub(crate) on_damage: OnDamage,
    pub(crate) compression: Compression,
    /// Payloads below this are not compressed.
    pub(crate) compression_bytes_min: u64,
    /// Up to so many bytes an append writes itself, whether or not that may wait for the device.
    pub(crate) inline_bytes_max: u64,
    /// Whether who waits for a flush may do it itself.
    pub(crate) inline_syncs: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            segment_bytes: 16 * MIB,
            ring_bytes: 4 * MIB,
            record_bytes_max: 64 * MIB,
            batch_bytes_max: 128 * MIB,
            preallocation: Preallocation::default(),
            recycle_segments: 0,
            on_damage: OnDamage::default(),
            compression: Compression::default(),
            compression_bytes_min: 128,
            inline_bytes_max: 0,
            inline_syncs: false,
        }
    }
}

/// The header's block and one more, up to what keeps a scan of one segment a bounded job.
const SEGMENT_BYTES: RangeInclusive<u64> = 8 * KIB..=4 << 30;
const RING_BYTES: RangeInclusive<u64> = KIB..=1 << 30;
/// A frame's length field could say more; a gibibyte keeps every sum far from 32 bits.
const RECORD_BYTES: RangeInclusive<u64> = 1..=RECORD_BYTES_LIMIT;
/// No release takes larger records, whatever its options.
pub(crate) const RECORD_BYTES_LIMIT: u64 = 1 << 30;

impl Config {
    /// # Errors
    ///
    /// `InvalidOption`, naming the first option that can't work.
    pub(crate) fn check(mut self) -> Result<Self> {
        let limits = [
            ("segment_bytes", self.segment_bytes, SEGMENT_BYTES, "from 8 KiB to 4 GiB"),
            ("ring_bytes", self.ring_bytes, RING_BYTES, "from 1 KiB to 1 GiB"),
            ("record_bytes_max", self.record_bytes_max, RECORD_BYTES, "from 1 byte to 1 GiB"),
        ];
        for (option, value, range, reason) in limits {
            if !range.contains(&value) {
                return Err(Error::InvalidOption { option, value, reason });
            }
        }
        if self.batch_bytes_max < self.record_bytes_max || self.batch_bytes_max > 2 << 30 {
            return Err(Error::InvalidOption {
                option: "batch_bytes_max",
                value: self.batch_bytes_max,
                reason: "from record_bytes_max to 2 GiB",
            });
        }
        #[cfg(feature = "zstd")]
        if let Compression::Zstd { level } = self.compression {
            if !(1..=22).contains(&level) {
                let (option, value) = ("compression", u64::from(level));
                return Err(Error::InvalidOption { option, value, reason: "a level from 1 to 22" });
            }
        }
        // Sectors: 512 bytes everywhere, so a segment ends on a sector.
        self.segment_bytes = self.segment_bytes.next_multiple_of(512);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_every_absurd_value_is_named() {
        assert!(Config::default().check().is_ok());
        let absurd = [
            Config { segment_bytes: 0, ..Config::default() },
            Config { segment_bytes: u64::MAX, ..Config::default() },
            Config { ring_bytes: 0, ..Config::default() },
            Config { ring_bytes: u64::MAX, ..Config::default() },
            Config { record_bytes_max: 0, ..Config::default() },
            Config { record_bytes_max: u64::MAX, ..Config::default() },
            Config { batch_bytes_max: 0, ..Config::default() },
            Config { batch_bytes_max: u64::MAX, ..Config::default() },
        ];
        for config in absurd {
            assert!(matches!(config.check(), Err(Error::InvalidOption { .. })), "{config:?}");
        }
    }
}
