use super::*;

/// Payloads that compress well, and payloads that do not.
fn payloads(bytes: usize) -> [Vec<u8>; 2] {
    let mut state = bytes as u64 | 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (state >> 56) as u8
    });
    [b"0123456789".iter().copied().cycle().take(bytes).collect(), noise.take(bytes).collect()]
}

fn compressions() -> Vec<Compression> {
    vec![
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd { level: 1 },
        #[cfg(feature = "zstd")]
        Compression::Zstd { level: 19 },
    ]
}

const LIMIT: u64 = 1 << 26;

#[test]
fn compressed_payload_round_trips_and_shrinks_frame() {
    for compression in compressions() {
        let config = Config { compression, compression_bytes_min: 0, ..Config::default() };
        let sizes = (0..300).chain([1000, 4095, 4096, 65_535, 65_536, 1 << 20]);
        for bytes in sizes {
            for payload in payloads(bytes) {
                let Some((codec, stored)) = compress(&config, &payload) else { continue };
                assert!(frame_bytes(stored.len() as u64) < frame_bytes(payload.len() as u64));
                assert_eq!(real_bytes(&stored), Some(bytes as u64));
                assert_eq!(expand(codec, &stored, LIMIT), Ok(payload));
            }
        }
        let [regular, noise] = payloads(4096);
        assert!(compress(&config, &regular).is_some_and(|(_, stored)| stored.len() < 200));
        assert_eq!(compress(&config, &noise), None);
        let above = Config { compression_bytes_min: 4097, ..config };
        assert_eq!(compress(&above, &regular), None, "below the minimum");
    }
}

#[test]
fn length_above_limit_or_impossible_is_refused() {
    for compression in compressions() {
        let config = Config { compression, ..Config::default() };
        let [payload, _] = payloads(4096);
        let (codec, mut stored) = compress(&config, &payload).unwrap();
        assert_eq!(expand(codec, &stored, 4095), Err(Unexpandable::AboveLimit { bytes: 4096 }));
        for bytes in [
            0,
            1,
            u32::try_from(stored.len()).unwrap(),
            4095,
            4097,
            1 << 24,
            (1 << 30) + 1,
            u32::MAX,
        ] {
            stored[..4].copy_from_slice(&bytes.to_le_bytes());
            let expanded = expand(codec, &stored, u64::MAX);
            assert_eq!(expanded, Err(Unexpandable::Malformed), "{codec:?}, {bytes}");
        }
    }
}

/// Hostile stored bytes with a valid checksum. The result is the payload or a refusal, never a
/// panic.
#[test]
fn changed_stored_bytes_give_claimed_length_or_error() {
    for compression in compressions() {
        let config = Config { compression, ..Config::default() };
        let payload = [payloads(600)[0].clone(), payloads(100)[1].clone()].concat();
        let (codec, stored) = compress(&config, &payload).unwrap();
        for length in 0..stored.len() {
            assert!(expand(codec, &stored[..length], LIMIT).is_err(), "{length}");
        }
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(expanded) = expand(codec, &damaged, LIMIT) {
                assert_eq!(Some(expanded.len() as u64), real_bytes(&damaged), "bit {bit}");
            }
        }
        let longer = [&stored[..], &[0; 8]].concat();
        assert_ne!(expand(codec, &longer, LIMIT), Ok(payload), "{codec:?}: all of it counts");
    }
}

#[test]
fn flags_round_trip_and_unknown_flags_are_refused() {
    for flags in 0..=u8::MAX {
        match Codec::from_flags(flags) {
            Ok(codec) => assert_eq!(codec.map_or(0, Codec::flags), flags),
            Err(()) => assert!(flags > 2, "{flags}"),
        }
    }
}

#[test]
fn build_without_codec_names_the_missing_feature() {
    let stored = [64, 0, 0, 0, 1, 2, 3];
    for (codec, is_built) in
        [(Codec::Lz4, cfg!(feature = "lz4")), (Codec::Zstd, cfg!(feature = "zstd"))]
    {
        let expected =
            if is_built { Unexpandable::Malformed } else { Unexpandable::NotBuilt(codec) };
        assert_eq!(expand(codec, &stored, LIMIT), Err(expected));
    }
}

/// Regression: with 32 bits the codec's bound of the packed length overflowed above 37 MiB.
#[cfg(feature = "lz4")]
#[test]
fn lz4_of_a_large_record_is_stored_or_left_alone() {
    let payload = vec![7; 40 << 20];
    let config = Config { compression: Compression::Lz4, ..Config::default() };
    match compress(&config, &payload) {
        Some((codec, stored)) => {
            assert_eq!(expand(codec, &stored, LIMIT).map(|whole| whole == payload), Ok(true));
        }
        None => assert_eq!(usize::BITS, 32, "a payload within the bound is compressed"),
    }
}
