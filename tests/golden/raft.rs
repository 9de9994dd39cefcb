//! Golden files of a Raft log: each kind of record, byte for byte, and its contents after reading.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use highwater::{
    Wal,
    raft::{Entries, Error, GroupInfo, RaftGroup, RaftLog, RaftOptions},
    simulation::{Disk, Image},
};

use super::{block_on, dump, golden, open, parse, recorded};

const CODEC: u64 = 300;

fn options() -> RaftOptions {
    let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    RaftLog::options().wal(wal).codec(CODEC).tail_cache_bytes(0)
}

async fn append(group: &RaftGroup, entries: &[(u64, u64, &[u8])]) {
    let mut gathered = Entries::new();
    entries.iter().for_each(|(index, term, payload)| gathered.push(*index, *term, payload));
    group.append(gathered).await.unwrap().synced().await.unwrap();
}

/// Makes each change of a group once, and removes another group.
async fn change(log: &RaftLog) {
    let group = log.group(1);
    group.set_vote("term 2, node 1").await.unwrap().synced().await.unwrap();
    append(&group, &[(1, 2, b"one"), (2, 2, b""), (3, 3, b"three"), (4, 3, b"four")]).await;
    let mut entries = Entries::new();
    entries.push(4, 300, b"another four");
    entries.push(5, 300, &[5; 70]);
    group.append_overwriting(entries).await.unwrap().synced().await.unwrap();
    group.set_committed("4").await.unwrap();
    group.set_user("members").await.unwrap().synced().await.unwrap();
    group.truncate_after(Some(4)).await.unwrap().synced().await.unwrap();
    group.purge(2, 2, "2-2").await.unwrap().synced().await.unwrap();
    let gone = log.group(u64::MAX);
    append(&gone, &[(u64::MAX / 2, 7, b"gone")]).await;
    log.remove_group(u64::MAX).await.unwrap().synced().await.unwrap();
    append(&log.group(200), &[(9, 1, b"idle"), (10, 1, b"as well")]).await;
}

fn changed() -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let log = options().open_with(disk.clone()).await.unwrap();
        change(&log).await;
        log.close().await.unwrap();
    });
    disk.image()
}

/// Returns the same log after more changes: the idle group's entries were copied, and the newest
/// header names a state record.
fn condensed() -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let options = options().checkpoint_bytes(4 << 10).rewrite_above_bytes(4 << 10);
        let log = options.open_with(disk.clone()).await.unwrap();
        change(&log).await;
        let group = log.group(1);
        let mut index = 5;
        while log.stats().rewritten_bytes == 0 || log.stats().checkpoint_count < 2 {
            append(&group, &[(index, 301, &[6; 900])]).await;
            group.purge(index - 1, 301, "").await.unwrap().synced().await.unwrap();
            index += 1;
        }
        log.close().await.unwrap();
    });
    disk.image()
}

/// Returns a log whose second record begins with the byte `kind`.
fn foreign(kind: u8) -> Image {
    let disk = Disk::new(7);
    block_on(async {
        let log = options().open_with(disk.clone()).await.unwrap();
        log.close().await.unwrap();
        let wal = open(&disk).await.unwrap();
        wal.append(&[kind, 1, 2, 3]).await.unwrap();
        wal.close().await.unwrap();
    });
    disk.image()
}

/// Returns the first byte of each record.
async fn kinds(image: &Image) -> BTreeSet<u8> {
    let wal = open(&Disk::with_image(image.clone(), 9)).await.unwrap();
    let kinds = wal.replay(..).map_ok(|record| record.payload[0]).try_collect();
    kinds.await.unwrap()
}

async fn group_contents(log: &RaftLog, id: u64) -> (GroupInfo, Vec<(u64, u64, Vec<u8>)>) {
    let info = log.group(id).state();
    let entries = log.group(id).read_all(..).await.unwrap();
    let entry = |e: highwater::raft::Entry| (e.index, e.term, e.payload.to_vec());
    (info, entries.into_iter().map(entry).collect())
}

#[test]
fn written_raft_log_equals_golden_files() {
    for (name, image) in [("v1_raft.txt", changed()), ("v1_raft_state.txt", condensed())] {
        let made = dump(&image);
        let golden = golden(name, &made);
        let differs = made.lines().zip(golden.lines()).find(|(made, golden)| made != golden);
        assert!(made == golden, "{name} differs, first (now, golden): {differs:?}");
    }
}

#[test]
fn golden_raft_files_have_each_kind_of_record() {
    let found = ["v1_raft.txt", "v1_raft_state.txt"].map(|name| {
        let image = parse(&recorded(name));
        block_on(kinds(&image))
    });
    let [changed, condensed] = &found;
    assert_eq!(
        changed.union(condensed).copied().collect::<Vec<_>>(),
        (0x11..=0x1d).collect::<Vec<_>>()
    );
    // The first file has all changes as records; the second has a state record instead of some.
    let changes = BTreeSet::from([0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a]);
    assert_eq!(*changed, changes);
    assert!([0x14, 0x1b, 0x1c, 0x1d].iter().all(|kind| condensed.contains(kind)));
}

#[test]
fn golden_raft_log_is_read_back() {
    block_on(async {
        let disk = Disk::with_image(parse(&recorded("v1_raft.txt")), 9);
        let log = options().open_with(disk).await.unwrap();
        assert_eq!(log.groups(), [1, 200]);
        let (info, entries) = group_contents(&log, 1).await;
        let expected = [(3, 3, b"three".to_vec()), (4, 300, b"another four".to_vec())];
        assert_eq!(entries, expected);
        assert_eq!((info.first, info.next, info.last), (3, 5, Some((4, 300))));
        let purged = info.purged.unwrap();
        assert_eq!((purged.index, purged.term, &purged.id[..]), (2, 2, &b"2-2"[..]));
        assert_eq!(info.vote.unwrap(), "term 2, node 1");
        assert_eq!(info.committed.unwrap(), "4");
        assert_eq!(info.user.unwrap(), "members");
        let (info, entries) = group_contents(&log, 200).await;
        assert_eq!(entries, [(9, 1, b"idle".to_vec()), (10, 1, b"as well".to_vec())]);
        assert_eq!((info.first, info.next, info.purged, info.vote), (9, 11, None, None));
    });
}

#[test]
fn golden_raft_state_record_is_read_back() {
    block_on(async {
        let disk = Disk::with_image(parse(&recorded("v1_raft_state.txt")), 9);
        let log = options().open_with(disk).await.unwrap();
        assert!(log.stats().opened_from_hint);
        assert_eq!(log.groups(), [1, 200]);
        let (info, entries) = group_contents(&log, 1).await;
        let last = info.next - 1;
        assert_eq!(entries, [(last, 301, vec![6; 900])]);
        let purged = info.purged.unwrap();
        assert_eq!((purged.index, purged.term, purged.id.len()), (last - 1, 301, 0));
        assert_eq!(info.vote.unwrap(), "term 2, node 1");
        assert_eq!(info.committed.unwrap(), "4");
        assert_eq!(info.user.unwrap(), "members");
        let (_, entries) = group_contents(&log, 200).await;
        assert_eq!(entries, [(9, 1, b"idle".to_vec()), (10, 1, b"as well".to_vec())]);
    });
}

#[test]
fn newer_and_unknown_raft_records_are_refused() {
    let cases = [
        ("next_version_raft.txt", 0x22, "another version, or not a record of a Raft log"),
        ("unknown_kind_raft.txt", 0x1e, "unknown kind of record"),
    ];
    for (name, kind, expected) in cases {
        let golden = golden(name, &dump(&foreign(kind)));
        let disk = Disk::with_image(parse(&golden), 9);
        let refused = block_on(options().open_with(disk.clone()));
        let Err(Error::BadRecord { lsn, reason }) = &refused else { panic!("{refused:?}") };
        assert!(lsn.as_u64() > 0 && *reason == expected, "{refused:?}");
        assert_eq!(block_on(kinds(&disk.image())), BTreeSet::from([0x11, kind]));
    }
}
