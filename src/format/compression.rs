//! Compressed payloads: the flags of each codec, compression and expansion.
//!
//! ```text
//!  0               4
//!  | real length   | packed bytes …                  |
//! ```
//!
//! The checksum covers the stored bytes, so a frame is checked without expanding it. Recovery, the
//! search past damage and a build without the codec treat a compressed payload like any other. No
//! stored value is trusted. Before memory is allocated, the real length is checked against the
//! limit, and against the codec's maximum for the packed bytes.

use crate::{
    format::frame::frame_bytes,
    options::{Compression, Config, RECORD_BYTES_LIMIT},
};

/// The length of the field in front of the packed bytes.
const LENGTH_BYTES: usize = 4;

/// The codec of a compressed payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// LZ4, the block format.
    Lz4,
    /// Zstandard, one frame.
    Zstd,
}

impl Codec {
    pub(crate) const fn flags(self) -> u8 {
        match self {
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    /// Returns the codec of these flags; `Err` if this release does not know them.
    pub(crate) const fn from_flags(flags: u8) -> Result<Option<Self>, ()> {
        match flags {
            0 => Ok(None),
            1 => Ok(Some(Codec::Lz4)),
            2 => Ok(Some(Codec::Zstd)),
            _ => Err(()),
        }
    }

    /// Returns the name of the codec, which is also the name of its feature.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    #[cfg_attr(
        not(all(feature = "lz4", feature = "zstd")),
        allow(unused_variables, reason = "a build without the codec does not read the bytes")
    )]
    fn expand(self, packed: &[u8], bytes: usize) -> Result<Vec<u8>, Unexpandable> {
        match self {
            #[cfg(feature = "lz4")]
            Codec::Lz4 => lz4::expand(packed, bytes).ok_or(Unexpandable::Malformed),
            #[cfg(feature = "zstd")]
            Codec::Zstd => zstandard::expand(packed, bytes).ok_or(Unexpandable::Malformed),
            #[cfg(not(all(feature = "lz4", feature = "zstd")))]
            codec => Err(Unexpandable::NotBuilt(codec)),
        }
    }
}

/// The reason why a stored payload cannot be expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unexpandable {
    /// This build does not contain the codec.
    #[cfg_attr(
        all(feature = "lz4", feature = "zstd"),
        allow(dead_code, reason = "this build has all codecs")
    )]
    NotBuilt(Codec),
    /// The payload would exceed the limit.
    AboveLimit { bytes: u64 },
    /// No release stores such bytes.
    Malformed,
}

impl Unexpandable {
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Unexpandable::NotBuilt(Codec::Lz4) => "compressed, and built without the feature lz4",
            Unexpandable::NotBuilt(Codec::Zstd) => "compressed, and built without the feature zstd",
            Unexpandable::AboveLimit { .. } => "a compressed record above record_bytes_max",
            Unexpandable::Malformed => {
                "a compressed payload that does not expand to its claimed length"
            }
        }
    }
}

/// Returns the compressed payload, if its frame is shorter than the uncompressed one.
#[inline]
pub(crate) fn compress(config: &Config, payload: &[u8]) -> Option<(Codec, Vec<u8>)> {
    if config.compression == Compression::None
        || (payload.len() as u64) < config.compression_bytes_min
    {
        return None;
    }
    let (codec, stored) = pack(config.compression, payload)?;
    let shrinks = frame_bytes(stored.len() as u64) < frame_bytes(payload.len() as u64);
    shrinks.then_some((codec, stored))
}

#[cfg_attr(
    not(any(feature = "lz4", feature = "zstd")),
    allow(unused_variables, reason = "this build has no codec")
)]
fn pack(compression: Compression, payload: &[u8]) -> Option<(Codec, Vec<u8>)> {
    match compression {
        Compression::None => None,
        #[cfg(feature = "lz4")]
        Compression::Lz4 => Some((Codec::Lz4, lz4::pack(payload)?)),
        #[cfg(feature = "zstd")]
        Compression::Zstd { level } => Some((Codec::Zstd, zstandard::pack(level, payload)?)),
    }
}

/// Returns the real length that a compressed payload claims. Untrusted.
pub(crate) fn real_bytes(stored: &[u8]) -> Option<u64> {
    let length = stored.first_chunk::<LENGTH_BYTES>()?;
    Some(u64::from(u32::from_le_bytes(*length)))
}

/// Expands a compressed payload. Never allocates more than `bytes_max`.
pub(crate) fn expand(codec: Codec, stored: &[u8], bytes_max: u64) -> Result<Vec<u8>, Unexpandable> {
    let (Some(bytes), Some(packed)) = (real_bytes(stored), stored.get(LENGTH_BYTES..)) else {
        return Err(Unexpandable::Malformed);
    };
    // No release stores a compressed payload that is not shorter than its record, or a record above
    // this limit.
    if bytes <= stored.len() as u64 || bytes > RECORD_BYTES_LIMIT {
        return Err(Unexpandable::Malformed);
    }
    if bytes > bytes_max {
        return Err(Unexpandable::AboveLimit { bytes });
    }
    let bytes = usize::try_from(bytes).map_err(|_| Unexpandable::AboveLimit { bytes })?;
    codec.expand(packed, bytes)
}

/// Allocates space for a compressed payload, with the real length in front.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn begun(payload: &[u8], packed_bytes_max: usize) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?;
    let mut stored = Vec::with_capacity(LENGTH_BYTES + packed_bytes_max);
    stored.extend_from_slice(&length.to_le_bytes());
    Some(stored)
}

#[cfg(feature = "lz4")]
mod lz4 {
    use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};

    use super::{LENGTH_BYTES, begun};

    /// One byte of a block expands to at most this many bytes.
    const RATIO_MAX: usize = 255;
    /// A block has at most this percentage of the payload's length.
    const BOUND_PERCENT: usize = 110;

    pub(super) fn pack(payload: &[u8]) -> Option<Vec<u8>> {
        // The codec multiplies the length by this before it divides. With 32 bits that overflows
        // above 37 MiB.
        payload.len().checked_mul(BOUND_PERCENT)?;
        let packed_bytes_max = get_maximum_output_size(payload.len());
        let mut stored = begun(payload, packed_bytes_max)?;
        stored.resize(LENGTH_BYTES + packed_bytes_max, 0);
        let packed_bytes = compress_into(payload, stored.get_mut(LENGTH_BYTES..)?).ok()?;
        stored.truncate(LENGTH_BYTES + packed_bytes);
        Some(stored)
    }

    pub(super) fn expand(packed: &[u8], bytes: usize) -> Option<Vec<u8>> {
        if bytes > packed.len().saturating_mul(RATIO_MAX) {
            return None;
        }
        let mut payload = vec![0; bytes];
        let expanded = decompress_into(packed, &mut payload).ok()?;
        (expanded == bytes).then_some(payload)
    }
}

#[cfg(feature = "zstd")]
mod zstandard {
    use std::cell::RefCell;

    use zstd::{
        bulk::{Compressor, Decompressor},
        zstd_safe::{compress_bound, get_frame_content_size},
    };

    use super::{LENGTH_BYTES, begun};

    // Creating a context costs more than compressing a small record. Each thread keeps one, so no
    // lock is needed.
    thread_local! {
        static COMPRESSOR: RefCell<Option<(u8, Compressor<'static>)>> = const { RefCell::new(None) };
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }

    pub(super) fn pack(level: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let packed_bytes_max = compress_bound(payload.len());
        let mut stored = begun(payload, packed_bytes_max)?;
        let mut packed = Vec::with_capacity(packed_bytes_max);
        COMPRESSOR
            .try_with(|slot| {
                let mut slot = slot.try_borrow_mut().ok()?;
                let other = slot.take_if(|(its_level, _)| *its_level != level);
                drop(other);
                if slot.is_none() {
                    *slot = Some((level, Compressor::new(i32::from(level)).ok()?));
                }
                let (_, compressor) = slot.as_mut()?;
                compressor.compress_to_buffer(payload, &mut packed).ok()
            })
            .ok()??;
        stored.extend_from_slice(&packed);
        debug_assert_eq!(stored.len(), LENGTH_BYTES + packed.len());
        Some(stored)
    }

    pub(super) fn expand(packed: &[u8], bytes: usize) -> Option<Vec<u8>> {
        // The length in the frame itself is checked before memory is allocated.
        if get_frame_content_size(packed).ok()? != Some(bytes as u64) {
            return None;
        }
        let mut payload = Vec::with_capacity(bytes);
        let expanded = DECOMPRESSOR
            .try_with(|slot| {
                let mut slot = slot.try_borrow_mut().ok()?;
                if slot.is_none() {
                    *slot = Some(Decompressor::new().ok()?);
                }
                slot.as_mut()?.decompress_to_buffer(packed, &mut payload).ok()
            })
            .ok()??;
        (expanded == bytes).then_some(payload)
    }
}

#[cfg(test)]
mod tests;
