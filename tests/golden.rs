//! Files of every released version of the format, byte for byte, and one of the next.
//!
//! `HIGHWATER_GOLDEN=write` writes them anew: only for a new version of the format, never to make
//! this test pass.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

#[path = "golden/raft.rs"]
mod raft;

use std::{fmt::Write, path::PathBuf};

use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Wal,
    simulation::{Disk, Image, Survival},
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

async fn open(disk: &Disk) -> highwater::Result<Wal> {
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    options.open_with(disk.clone()).await
}

/// As `hexdump -C`, without rows of zeros and without repetitions.
fn dump(image: &Image) -> String {
    let mut text = String::new();
    for name in image.names() {
        let bytes = image.bytes(&name).unwrap();
        writeln!(text, "file {name}, {} bytes", bytes.len()).unwrap();
        let mut before: &[u8] = &[];
        let mut repeats = false;
        for (i, row) in bytes.chunks(16).enumerate() {
            if row.iter().all(|&byte| byte == 0) {
                before = &[];
                repeats = false;
                continue;
            }
            if row == before {
                if !repeats {
                    text.push_str("*\n");
                }
                repeats = true;
                continue;
            }
            (before, repeats) = (row, false);
            write!(text, "{:08x}", i * 16).unwrap();
            row.iter().for_each(|byte| write!(text, " {byte:02x}").unwrap());
            text.push('\n');
        }
        writeln!(text, "end").unwrap();
    }
    text
}

/// The files of a dump. A `*` fills up to the next row; one is never the last row of a file.
fn parse(text: &str) -> Image {
    let mut image = Disk::new(0).image();
    let mut file: Option<(String, Vec<u8>)> = None;
    let (mut row, mut next, mut repeats) = (Vec::new(), 0, false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("file ") {
            let (name, length) = rest.split_once(", ").unwrap();
            let length = length.strip_suffix(" bytes").unwrap().parse().unwrap();
            file = Some((name.to_owned(), vec![0; length]));
        } else if line == "end" {
            assert!(!repeats, "where a repetition ends can't be told");
            let (name, bytes) = file.take().unwrap();
            image.put(&name, bytes);
        } else if line == "*" {
            repeats = true;
        } else {
            let (offset, hex) = line.split_once(' ').unwrap();
            let offset = usize::from_str_radix(offset, 16).unwrap();
            let bytes = &mut file.as_mut().unwrap().1;
            while repeats && next < offset {
                bytes[next..next + 16].copy_from_slice(&row);
                next += 16;
            }
            row = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            bytes[offset..offset + row.len()].copy_from_slice(&row);
            (next, repeats) = (offset + 16, false);
        }
    }
    image
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn recorded(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

fn golden(name: &str, made: &str) -> String {
    if std::env::var("HIGHWATER_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path(name), made).unwrap();
    }
    recorded(name)
}

fn payloads() -> Vec<Vec<u8>> {
    let mut payloads: Vec<Vec<u8>> = vec![
        b"a record".to_vec(),
        b"".to_vec(),
        b"padded".to_vec(),
        b"the first of a batch".to_vec(),
        b"the second".to_vec(),
        b"the last".to_vec(),
    ];
    // Rows of these repeat, and end with another byte.
    payloads.extend((1..6u8).map(|i| [vec![i; 999], vec![0xff]].concat()));
    payloads
}

async fn fill(wal: &Wal) {
    let payloads = payloads();
    for payload in &payloads[..3] {
        wal.append(payload).await.unwrap();
    }
    wal.append_batch(&payloads[3..6]).await.unwrap();
    wal.sync().await.unwrap();
    for payload in &payloads[6..] {
        wal.append(payload).await.unwrap();
    }
}

/// Records, a batch, marks, a rotation and a close.
fn closed() -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let wal = open(&disk).await.unwrap();
        fill(&wal).await;
        wal.close().await.unwrap();
    });
    disk.image()
}

/// The same without the close, recovered: two epochs.
fn recovered() -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let wal = open(&disk).await.unwrap();
        fill(&wal).await;
        drop(wal);
        let disk = Disk::with_image(disk.image().crash(Survival::Everything), 8);
        drop(open(&disk).await.unwrap());
        disk.image()
    })
}

/// A hundred times `a`, as LZ4 and Zstandard may have it, by hand: what codecs make of it may
/// change with their releases, what they make of this may not.
const LZ4: &[u8] = b"\x64\0\0\0\x1fa\x01\x00\x4b\x50aaaaa";
const ZSTD: &[u8] = b"\x64\0\0\0\x28\xb5\x2f\xfd\x20\x64\x23\x03\x00a";

/// Seals the frame at `lsn` of the first segment anew, with these flags.
fn flag(file: &mut [u8], lsn: usize, flags: u8) {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&file[16..32]), &1u64.to_le_bytes());
    let frame = &mut file[4096 + lsn..];
    frame[5] = flags;
    frame[6..8].fill(0);
    let covered = |frame: &[u8]| {
        [&seed.to_le_bytes(), &frame[8..12], &(lsn as u64).to_le_bytes(), &frame[..8]].concat()
    };
    let crc = crc32c::crc32c(&covered(frame));
    frame[6..8].copy_from_slice(&((crc >> 16) as u16 ^ crc as u16).to_le_bytes());
    let length = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    let payload_crc = crc32c::crc32c(&frame[16..16 + length]);
    let crc = crc32c::crc32c_append(payload_crc, &covered(frame));
    frame[12..16].copy_from_slice(&crc.to_le_bytes());
}

/// Compressed records, alone and in a batch with one that isn't.
fn compressed() -> Image {
    let disk = Disk::new(7);
    let flagged = block_on(async {
        let wal = open(&disk).await.unwrap();
        let lz4 = wal.append(LZ4).await.unwrap();
        let batch = wal.append_batch([b"plain", LZ4]).await.unwrap();
        let zstd = wal.append(ZSTD).await.unwrap();
        wal.close().await.unwrap();
        [(lz4, 1), (Lsn::new(batch.start.as_u64() + 24), 1), (zstd, 2)]
    });
    let mut image = disk.image();
    let name = image.names()[0].clone();
    let mut bytes = image.bytes(&name).unwrap().to_vec();
    for (lsn, flags) in flagged {
        flag(&mut bytes, lsn.as_u64() as usize, flags);
    }
    image.put(&name, bytes);
    image
}

#[test]
fn compressed_records_of_the_golden_file_are_read_back() {
    let made = dump(&compressed());
    let golden = golden("v1_compressed.txt", &made);
    assert_eq!(made, golden);
    let disk = Disk::with_image(parse(&golden), 9);
    let found: Vec<_> = block_on(async {
        let wal = open(&disk).await.unwrap();
        assert!(wal.recovery().was_closed);
        wal.replay(..).map_ok(|record| record.payload.to_vec()).collect().await
    });
    let a = vec![b'a'; 100];
    let payloads: Vec<_> = found.iter().filter_map(|found| found.as_ref().ok()).cloned().collect();
    assert_eq!(payloads[..3], [a.clone(), b"plain".to_vec(), a.clone()]);
    if cfg!(feature = "zstd") {
        assert_eq!(payloads[3], a);
    } else {
        let last = found.last().unwrap();
        assert!(matches!(last, Err(Error::UnsupportedCompression { feature: "zstd", .. })));
    }
}

/// A header of the next version: another number, one field more, its checksum in the last bytes.
fn next_version() -> Image {
    let mut image = closed();
    let name = image.names()[0].clone();
    let mut bytes = image.bytes(&name).unwrap().to_vec();
    bytes[8..10].copy_from_slice(&2u16.to_le_bytes());
    bytes[12..16].copy_from_slice(&124u32.to_le_bytes());
    bytes[112..120].copy_from_slice(b"newfield");
    let crc = crc32c::crc32c(&bytes[..120]);
    bytes[120..124].copy_from_slice(&crc.to_le_bytes());
    image.put(&name, bytes);
    image
}

#[test]
fn what_is_written_is_the_golden_file_byte_for_byte() {
    for (name, image) in [("v1_closed.txt", closed()), ("v1_recovered.txt", recovered())] {
        let made = dump(&image);
        let golden = golden(name, &made);
        if made != golden {
            let differs = made.lines().zip(golden.lines()).find(|(made, golden)| made != golden);
            panic!("{name} differs, first (now, golden): {differs:?}");
        }
    }
}

#[test]
fn the_golden_files_are_read_back() {
    for (name, image) in [("v1_closed.txt", closed()), ("v1_recovered.txt", recovered())] {
        let disk = Disk::with_image(parse(&golden(name, &dump(&image))), 9);
        let found: Vec<Vec<u8>> = block_on(async {
            let wal = open(&disk).await.unwrap();
            assert_eq!(wal.recovery().was_closed, name == "v1_closed.txt");
            assert_eq!(wal.recovery().cut, None);
            let payloads = wal.replay(..).map_ok(|record| record.payload.to_vec());
            payloads.try_collect().await.unwrap()
        });
        assert_eq!(found, payloads(), "{name}");
    }
}

#[test]
fn the_next_version_is_refused_and_left_alone() {
    let golden = golden("next_version.txt", &dump(&next_version()));
    let disk = Disk::with_image(parse(&golden), 9);
    let refused = block_on(open(&disk));
    assert!(
        matches!(
            &refused,
            Err(Error::UnsupportedVersion { version: 2, supported: 1, segment })
                if segment == "00000000000000000001.wal"
        ),
        "{refused:?}"
    );
    assert_eq!((disk.operation_count(), dump(&disk.image())), (0, golden));
}
