//! Headers in the wrong file, and header entries of newer releases.

use highwater::{
    Error, Wal, Warning,
    simulation::{Disk, Image},
};

use crate::{
    block_on, segments,
    support::{records, tiny},
};

/// Returns an intact log of several segments, and its number of records.
fn log(is_closed: bool) -> (Image, usize) {
    let disk = Disk::new(3);
    block_on(async {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        for i in 0..40u8 {
            wal.append_and_sync(&[i; 400]).await.unwrap();
        }
        if is_closed {
            wal.close().await.unwrap();
        }
    });
    (disk.image(), 40)
}

async fn open(image: Image) -> highwater::Result<Wal> {
    tiny().open_with(Disk::with_image(image, 4)).await
}

/// A file that was being prepared shows an older segment: only its header, or all of it.
#[test]
fn old_header_under_new_number_is_ignored() {
    for is_closed in [true, false] {
        let (image, count) = log(is_closed);
        let names: Vec<String> = segments(&image)
            .into_iter()
            .filter(|name| image.bytes(name).unwrap()[0] != 0)
            .collect();
        for (older, shown_bytes) in
            [(0, 4096), (0, 8192), (2, 4096), (2, 8192), (names.len() - 1, 8192)]
        {
            let mut doctored = image.clone();
            let mut bytes = image.bytes(&names[older]).unwrap()[..shown_bytes].to_vec();
            bytes.resize(8192, 0);
            let name = "00000000000000000099.wal";
            doctored.put(name, bytes);
            block_on(async {
                let wal = open(doctored).await.unwrap();
                assert_eq!(records(&wal).await.len(), count);
                let old_count = names.len();
                assert!(old_count > 3, "{old_count} segments");
                let warning = Warning::MisplacedHeader {
                    name: name.to_owned(),
                    belongs_to: names[older].clone(),
                };
                assert!(wal.recovery().warnings.contains(&warning), "{}", wal.recovery());
                assert_eq!(wal.recovery().was_closed, is_closed, "{}", wal.recovery());
                wal.append_and_sync(b"later").await.unwrap();
            });
        }
    }
}

/// A renamed segment is missing at its old name; the error names both.
#[test]
fn renamed_segment_is_corrupt() {
    let (image, _) = log(true);
    let names = segments(&image);
    for (from, to) in [(1, 77), (names.len() - 1, 77)] {
        let mut renamed = image.clone();
        let bytes = image.bytes(&names[from]).unwrap().to_vec();
        renamed.delete(&names[from]);
        renamed.put(&format!("{to:020}.wal"), bytes);
        let error = block_on(open(renamed)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{to:020}.wal")) && text.contains(&names[from]), "{text}");
    }
}

/// Seals both copies of the first segment's header again, with these extension entries.
fn extend(image: &mut Image, entries: &[u8]) {
    let name = segments(image)[0].clone();
    let mut bytes = image.bytes(&name).unwrap().to_vec();
    for at in [0, 2048] {
        let header = &mut bytes[at..at + 2048];
        header[120..120 + entries.len()].copy_from_slice(entries);
        let covered = 120 + entries.len();
        header[12..16].copy_from_slice(&(covered as u32 + 4).to_le_bytes());
        let crc = crc32c::crc32c(&header[..covered]);
        header[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
    }
    image.put(&name, bytes);
}

#[test]
fn unknown_extension_is_refused_unless_skippable() {
    let (mut image, count) = log(true);
    extend(&mut image, &[0x05, 0x80, 4, 0, 1, 2, 3, 4]);
    block_on(async {
        let wal = open(image.clone()).await.unwrap();
        assert_eq!(records(&wal).await.len(), count);
    });
    extend(&mut image, &[0x05, 0x00, 4, 0, 1, 2, 3, 4]);
    let refused = block_on(open(image)).unwrap_err();
    assert!(matches!(refused, Error::UnsupportedExtension { code: 5, .. }), "{refused}");
}
