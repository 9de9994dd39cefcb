//! Searches take a number of steps bounded by files and bytes, whatever these contain.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, OnDamage, Reader, Wal, inspect,
    simulation::{Disk, Image},
    steps,
    storage::{Locking, Storage, StorageFile},
};

use super::{
    bytes::{file_name, reseal_header, seal, word},
    log::{HEADER, block_on, open, unclosed_log},
};

/// Returns the most steps that any way of reading may take: some per byte, and the tried epochs for
/// each pair of files.
fn steps_max(image: &Image) -> u64 {
    let bytes: usize = image.names().iter().map(|name| image.bytes(name).unwrap().len()).sum();
    let files = image.names().len() as u64;
    2 * bytes as u64 + files * files * 1024
}

/// Reads the image in every possible way, each within its steps.
fn assert_bounded(image: &Image, what: &str) {
    let limit = steps_max(image);
    let disk = || Disk::with_image(image.clone(), 7);
    let small = || Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let check = |way: &str, work: &dyn Fn()| {
        let ((), taken) = steps::within(limit, work);
        eprintln!("{way} {taken} {limit}");
        assert!(taken <= limit, "{what}, {way}: {taken} of {limit} steps");
    };
    check("open", &|| drop(block_on(small().open_with(disk()))));
    check("cut at damage", &|| {
        let options = small().on_damage(OnDamage::TruncateAtDamage);
        drop(block_on(options.open_with(disk())));
    });
    check("reader", &|| {
        drop(block_on(async {
            let reader = Reader::options().open_with(disk()).await?;
            reader.replay(..).try_collect::<Vec<_>>().await
        }));
    });
    check("salvage", &|| {
        block_on(async {
            if let Ok(salvage) = Reader::options().salvage_with(disk()).await {
                drop(salvage.collect::<Vec<_>>().await);
            }
        });
    });
    check("inspect", &|| drop(inspect::storage(disk())));
    check("plan", &|| {
        drop(inspect::Snapshot::of_storage(disk()).map(|snapshot| snapshot.plan_repair()));
    });
}

fn with_base(image: &mut Image, sequence: u64, base: u64) {
    let name = file_name(sequence);
    let mut bytes = image.bytes(&name).unwrap().to_vec();
    bytes[32..40].copy_from_slice(&base.to_le_bytes());
    reseal_header(&mut bytes);
    image.put(&name, bytes);
}

/// Returns a segment without a header, whose first frame is valid at no position.
fn headless(id: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xaa; HEADER];
    bytes.extend(seal(id, 1, 0, 1, b"of no place at all", 0));
    bytes[HEADER + 6] ^= 1;
    bytes.resize(8192, 0);
    bytes
}

/// A valid header with a base far above the walk's end once made the search for the next base try
/// 2^58 positions.
#[test]
fn base_far_above_the_end_takes_bounded_steps() {
    for base in [1 << 33, 1 << 40, 1 << 61, (1 << 62) - 8] {
        let mut image = unclosed_log().image;
        let id = image.bytes(&file_name(1)).unwrap()[16..32].to_vec();
        with_base(&mut image, 2, base);
        for name in image.names().into_iter().skip(2) {
            image.delete(&name);
        }
        image.put(&file_name(3), headless(&id));
        assert_bounded(&image, &format!("base {base}"));
    }
}

/// Many segments with distant bases, and many without a header: each is a place where the log may
/// have been truncated.
#[test]
fn scattered_bases_take_bounded_steps() {
    let mut image = unclosed_log().image;
    let intact = image.bytes(&file_name(1)).unwrap().to_vec();
    let id = intact[16..32].to_vec();
    for name in image.names().into_iter().skip(1) {
        image.delete(&name);
    }
    let mut before = (word(&intact, 32), word(&intact, 48));
    for sequence in 2..20u64 {
        let mut bytes = intact.clone();
        let base = sequence << 55;
        let fields =
            [(32, base), (48, sequence + 1), (56, before.0), (64, before.1), (112, sequence)];
        for (at, value) in fields {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        // All below the base was synced, so a recovery may begin there.
        bytes[80..88].copy_from_slice(&base.to_le_bytes());
        reseal_header(&mut bytes);
        bytes.truncate(HEADER);
        bytes.extend(seal(&id, 1, base, 1, b"a record", base));
        bytes.resize(intact.len(), 0);
        image.put(&file_name(sequence), bytes);
        before = (base, sequence + 1);
    }
    for sequence in 30..50u64 {
        image.put(&file_name(sequence), headless(&id));
    }
    assert_bounded(&image, "scattered");
    let opened = block_on(Wal::options().open_with(Disk::with_image(image, 7)));
    assert!(opened.is_ok(), "no record in these files was synced: {opened:?}");
}

fn words(bytes: &mut [u8], words: &[(usize, u64)]) {
    for &(at, word) in words {
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    reseal_header(bytes);
    let encoded = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes.copy_within(..encoded, 2048);
}

/// Returns an empty log that begins at `base`.
fn empty_log_at(base: u64) -> Image {
    let disk = Disk::new(5);
    drop(block_on(open(&disk)).unwrap());
    let mut image = disk.image();
    let mut bytes = image.bytes(&file_name(1)).unwrap().to_vec();
    words(&mut bytes, &[(32, base), (72, base), (80, base)]);
    bytes[HEADER..].fill(0);
    image.put(&file_name(1), bytes);
    image
}

/// LSN 2^62 is the limit: beyond it, written headers would be invalid.
#[test]
fn append_beyond_last_lsn_returns_lsn_limit() {
    const LIMIT: u64 = 1 << 62;
    let is_limit = |error: &Error| matches!(error, Error::LsnLimit { .. });
    let mut torn = empty_log_at(LIMIT - (8 << 10) - 8);
    let mut bytes = torn.bytes(&file_name(1)).unwrap().to_vec();
    bytes[HEADER..HEADER + 64].fill(0xff);
    torn.put(&file_name(1), bytes);
    let near = Disk::with_image(torn, 3);
    let disk = Disk::with_image(empty_log_at(LIMIT - (40 << 10)), 3);
    block_on(async {
        let wal = open(&disk).await.unwrap();
        let mut written = Vec::new();
        let mut end = None;
        while end.is_none() && written.len() < 300 {
            match wal.append_and_sync(vec![7; 200]).await {
                Ok(lsn) => written.push(lsn),
                Err(error) => end = Some(error),
            }
        }
        assert!(end.as_ref().is_some_and(is_limit), "{end:?}");
        assert!(written.len() > 80, "{} records", written.len());
        assert!(wal.watermarks().reserved.as_u64() < LIMIT);
        // The log refuses appends; all other calls work.
        assert!(is_limit(&wal.append(vec![7; 200]).await.unwrap_err()));
        wal.sync().await.unwrap();
        let middle = written[written.len() / 2];
        wal.truncate_before(middle).await.unwrap();
        let read: Vec<_> = wal.replay(..).map_ok(|record| record.lsn).try_collect().await.unwrap();
        assert_eq!(read, written[written.len() / 2..]);
        wal.close().await.unwrap();
        drop(wal);
        let reader = Reader::options().open_with(disk.clone()).await.unwrap();
        let read: Vec<_> =
            reader.replay(..).map_ok(|record| record.lsn).try_collect().await.unwrap();
        assert_eq!(read, written[written.len() / 2..]);
        let wal = open(&disk).await.unwrap();
        assert!(wal.recovery().was_closed);
        assert!(is_limit(&wal.append_and_sync(vec![7; 3000]).await.unwrap_err()));
        drop(wal);
        // A torn tail needs a new segment, for which no LSNs are left.
        let larger = Wal::options().segment_bytes(16 << 10).ring_bytes(2 << 10);
        let refused = larger.open_with(near).await;
        assert!(is_limit(&refused.unwrap_err()));
    });
}

/// Without a number for the next segment, the first rotation once poisoned the log.
#[test]
fn last_segment_numbers_do_not_stop_log() {
    let intact = unclosed_log().image;
    let model = intact.bytes(&file_name(1)).unwrap().to_vec();
    let forged = |number| {
        let mut forged = model.clone();
        let fields = [(32, 1 << 20), (40, 1), (48, 9), (56, 1 << 19), (64, 8), (112, number)];
        words(&mut forged, &fields);
        forged
    };
    let cuts = ["", ".cut"];
    for number in [u64::MAX, u64::MAX - 1, (1 << 63) + 1, (1 << 63) - 1, (1 << 63) - 2] {
        let contents = [vec![0; 8192], vec![0xaa; 8192], model.clone(), forged(number)];
        for (bytes, cut) in contents.iter().flat_map(|bytes| cuts.map(|cut| (bytes, cut))) {
            let name = format!("{}{cut}", file_name(number));
            let mut image = intact.clone();
            image.put(&name, bytes.clone());
            let disk = Disk::with_image(image, 3);
            let found = inspect::storage(disk.clone()).unwrap();
            let names_file = |text: &dyn std::fmt::Debug| format!("{text:?}").contains(&name[..24]);
            block_on(async {
                match open(&disk).await {
                    Ok(wal) => {
                        assert!(names_file(&found.warnings), "{name}: {:?}", found.warnings);
                        assert!(names_file(&wal.recovery().warnings), "{name}");
                        for _ in 0..60 {
                            wal.append_and_sync(vec![7; 900]).await.unwrap();
                        }
                        wal.close().await.unwrap();
                        let again = open(&disk).await.unwrap();
                        assert!(again.recovery().was_closed);
                    }
                    Err(error) => {
                        // This number belongs to the log, so no number is left.
                        assert!(number < 1 << 63, "{name}: {error}");
                        assert!(
                            names_file(&error) && error.to_string().contains("move"),
                            "{error}"
                        );
                        assert!(names_file(&found.verdict), "{:?}", found.verdict);
                    }
                }
            });
        }
    }
}

/// A segment file of 7 EiB with a blank header and other bytes after it.
#[derive(Debug)]
struct Endless(Arc<AtomicU64>);

impl StorageFile for Endless {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.fetch_max(offset + buffer.len() as u64, Ordering::Relaxed);
        buffer.fill(if offset < HEADER as u64 { 0 } else { 0xff });
        Ok(buffer.len())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(7 << 60)
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Endless {
    fn location(&self) -> String {
        "endless".to_owned()
    }
    fn is_nonblocking(&self) -> bool {
        true
    }
    fn lock(&self) -> io::Result<Locking> {
        Ok(Locking::Held(Box::new(())))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![file_name(1), file_name(2)])
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn open(&self, _: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(Endless(Arc::clone(&self.0))))
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A way of reading a log.
type Way = (&'static str, fn(Endless));

/// A blank segment must not be read to the end of its file.
#[test]
fn blank_segment_is_read_up_to_segment_size() {
    let ways: [Way; 4] = [
        ("open", |storage| drop(block_on(Wal::options().open_with(storage)))),
        ("reader", |storage| drop(block_on(Reader::options().open_with(storage)))),
        ("inspect", |storage| drop(inspect::storage(storage))),
        ("salvage", |storage| {
            block_on(async {
                if let Ok(salvage) = Reader::options().salvage_with(storage).await {
                    drop(salvage.collect::<Vec<_>>().await);
                }
            });
        }),
    ];
    for (way, look) in ways {
        let read_to = Arc::new(AtomicU64::new(0));
        look(Endless(Arc::clone(&read_to)));
        let read_to = read_to.load(Ordering::Relaxed);
        assert!(read_to > 4096 && read_to <= 8 << 30, "{way}: read up to {read_to}");
    }
}
