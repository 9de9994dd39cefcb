//! Byte-for-byte files of each released format version, and one of the next version.
//!
//! `HIGHWATER_GOLDEN=write` writes the files again. Use it only for a new format version,
//! never to make this test pass.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

#[path = "golden/raft.rs"]
mod raft;

use std::{
    fmt::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

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

/// Dumps files like `hexdump -C`, without rows of zeros and with `*` for repeated rows.
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

/// Parses a dump. A `*` repeats the last row up to the next one, so a file never ends with `*`.
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
            assert!(!repeats, "a file must not end with a repetition");
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
    // Each has repeated rows and another last byte.
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

/// Returns a closed log with records, a batch, marks and a rotation.
fn closed() -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let wal = open(&disk).await.unwrap();
        fill(&wal).await;
        wal.close().await.unwrap();
    });
    disk.image()
}

/// Returns the same log without the close, after recovery: two epochs.
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

/// Returns a closed log with time marks and each kind of slots entry. The header of its second
/// segment names a time mark and a slots record.
fn slots() -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.time_marks(Duration::from_secs(1)).open_with(disk.clone()).await.unwrap();
        let indexer = wal.slot("indexer").await.unwrap();
        indexer.keep_at_most(1 << 20).unwrap();
        let removed = wal.slot("gone").await.unwrap();
        let lsn = wal.append_and_sync(b"a record").await.unwrap();
        indexer.advance_and_sync(lsn).await.unwrap();
        removed.remove().await.unwrap();
        fill(&wal).await;
        wal.close().await.unwrap();
    });
    disk.image()
}

/// 100 bytes `a`, compressed with LZ4 and with Zstandard by hand. New codec releases may compress
/// differently, but must decompress these bytes.
const LZ4: &[u8] = b"\x64\0\0\0\x1fa\x01\x00\x4b\x50aaaaa";
const ZSTD: &[u8] = b"\x64\0\0\0\x28\xb5\x2f\xfd\x20\x64\x23\x03\x00a";

/// Sets the flags of the first segment's frame at `lsn`, and seals it again.
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

/// Returns a log with compressed records, alone and in a batch with a plain one.
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
fn golden_compressed_records_are_read_back() {
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

/// Returns a log with a header of the next version: one more field, then the checksum.
fn next_version() -> Image {
    let mut image = closed();
    let name = image.names()[0].clone();
    let mut bytes = image.bytes(&name).unwrap().to_vec();
    bytes[8..10].copy_from_slice(&2u16.to_le_bytes());
    bytes[12..16].copy_from_slice(&132u32.to_le_bytes());
    bytes[120..128].copy_from_slice(b"newfield");
    let crc = crc32c::crc32c(&bytes[..128]);
    bytes[128..132].copy_from_slice(&crc.to_le_bytes());
    image.put(&name, bytes);
    image
}

#[test]
fn written_log_equals_golden_file() {
    let images =
        [("v1_closed.txt", closed()), ("v1_recovered.txt", recovered()), ("v1_slots.txt", slots())];
    for (name, image) in images {
        let made = dump(&image);
        let golden = golden(name, &made);
        if made != golden {
            let differs = made.lines().zip(golden.lines()).find(|(made, golden)| made != golden);
            panic!("{name} differs, first (now, golden): {differs:?}");
        }
    }
}

#[test]
fn golden_files_are_read_back() {
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
fn golden_slots_and_times_are_read_back() {
    for is_closed in [true, false] {
        let mut image = parse(&golden("v1_slots.txt", &dump(&slots())));
        let newest = image.names().into_iter().rfind(|name| name.ends_with(".wal")).unwrap();
        if !is_closed {
            // The close is the last frame. Without it, the header leads to the slots.
            let mut bytes = image.bytes(&newest).unwrap().to_vec();
            let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            bytes[used - 24..used].fill(0);
            image.put(&newest, bytes);
            image.delete("LAST-CLOSE");
        }
        block_on(async {
            let wal = open(&Disk::with_image(image, 9)).await.unwrap();
            assert_eq!(wal.recovery().was_closed, is_closed);
            let slots = wal.slots();
            assert_eq!(slots.len(), 1);
            assert_eq!(slots[0].name, "indexer");
            assert_eq!(slots[0].keep_bytes_max, Some(1 << 20));
            let first: Vec<_> =
                wal.replay(slots[0].position..).take(1).try_collect().await.unwrap();
            assert_eq!(
                (first[0].lsn, &first[0].payload[..]),
                (slots[0].position, &b"a record"[..])
            );
            let marked = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000);
            let later = marked + Duration::from_millis(1);
            assert_eq!(wal.at_time(marked).await.unwrap(), Lsn::ZERO);
            assert!(wal.at_time(later).await.unwrap() > Lsn::ZERO);
        });
    }
}

#[test]
fn next_version_is_refused_unchanged() {
    let golden = golden("next_version.txt", &dump(&next_version()));
    let disk = Disk::with_image(parse(&golden), 9);
    let refused = block_on(open(&disk));
    assert!(
        matches!(
            &refused,
            Err(Error::UnsupportedVersion { version: 2, supported: 1, segment, .. })
                if segment == "00000000000000000001.wal"
        ),
        "{refused:?}"
    );
    assert_eq!((disk.operation_count(), dump(&disk.image())), (0, golden));
}

/// A test vector of the format's page: the golden file, the file of the log, and its rows.
struct Vector<'a> {
    golden: &'a str,
    file: &'a str,
    rows: Vec<(usize, Vec<u8>)>,
}

/// Returns the vectors of a page: code blocks whose first line is `vector GOLDEN FILE`.
fn vectors(page: &str) -> Vec<Vector<'_>> {
    let blocks = page.split("```text\nvector ").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let vectors = blocks.map(|(block, _)| {
        let (title, rows) = block.split_once('\n').unwrap();
        let (golden, file) = title.split_once(' ').unwrap();
        let rows = rows.lines().map(|row| {
            let (offset, hex) = row.split_once(' ').unwrap();
            let bytes = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
            (usize::from_str_radix(offset, 16).unwrap(), bytes.collect())
        });
        Vector { golden, file, rows: rows.collect() }
    });
    vectors.collect()
}

/// Returns the rows of a page that differ from the golden files.
fn wrong_rows(page: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for Vector { golden, file, rows } in vectors(page) {
        let image = parse(&recorded(golden));
        let bytes = image.bytes(file).unwrap();
        for (offset, row) in rows {
            if bytes.get(offset..offset + row.len()) != Some(&row[..]) {
                wrong.push(format!("{golden} {file} {offset:08x}"));
            }
        }
    }
    wrong
}

#[test]
fn test_vectors_match_the_golden_files() {
    let page = std::fs::read_to_string("docs/FORMAT.md").unwrap();
    let files: Vec<_> = vectors(&page).iter().map(|vector| vector.file).collect();
    assert!(files.len() >= 6 && files.contains(&"LAST-CLOSE"), "{files:?}");
    assert_eq!(wrong_rows(&page), Vec::<String>::new());
    let damaged = page.replace("00001010 61 20", "00001010 61 21");
    assert_eq!(wrong_rows(&damaged), ["v1_closed.txt 00000000000000000001.wal 00001010"]);

    let seed = crc32c::crc32c(b"\xda\xdd\x16\x86\xe4\x74\x27\xc9\x50\xd6\x14\x11\x0a\x90\x00\x3c");
    let seed = crc32c::crc32c_append(seed, &1u64.to_le_bytes());
    assert!(page.contains(&format!("`{seed:08x}`")), "the seed is {seed:08x}");
}
