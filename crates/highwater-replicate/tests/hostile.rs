//! Peers that send anything, that do not know the secret, and that stop in the middle.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use highwater::{
    Lsn, Wal,
    simulation::{Disk, Random},
};
use highwater_replicate::{Error, Replica, Replicas, SharedSecret, Unauthenticated};
use support::{Kept, assert_identical, caught_up, log_options, options, replica_on, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

async fn leader(seed: u64) -> (Disk, Wal, Replicas) {
    let disk = Disk::new(seed);
    let wal = log_options().open_with(disk.clone()).await.unwrap();
    for number in 0..30 {
        wal.append_and_sync(format!("{number:300}")).await.unwrap();
    }
    let replicas = Replicas::new(&wal, options());
    (disk, wal, replicas)
}

/// Copies bytes from one side to the other, and lets `change` see each chunk with its offset.
async fn relay(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mut change: impl FnMut(u64, &mut [u8]) -> bool,
) {
    let mut buffer = vec![0; 1000];
    let mut offset = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !change(offset, &mut buffer[..count]) || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
        offset += count as u64;
    }
    let _ = to.shutdown().await;
}

/// Connects a leader and a replica, with `change` on the bytes of the leader.
async fn through(
    replicas: &Replicas,
    replica: &Replica,
    change: impl FnMut(u64, &mut [u8]) -> bool + Send + 'static,
) -> Error {
    let (near, leader_end) = tokio::io::duplex(4096);
    let (far, replica_end) = tokio::io::duplex(4096);
    let (from_leader, to_leader) = tokio::io::split(leader_end);
    let (from_replica, to_replica) = tokio::io::split(replica_end);
    let back = tokio::spawn(relay(from_replica, to_leader, |_, _| true));
    let forth = tokio::spawn(relay(from_leader, to_replica, change));
    let leading = replicas.clone();
    let served = tokio::spawn(async move { leading.serve(near, &Unauthenticated).await });
    let ended = replica.follow(far, &Unauthenticated).await.unwrap_err();
    let _ = (served.await, back.await, forth.await);
    ended
}

/// Each changed bit ends the connection, and no byte of it reaches the copy.
#[test]
fn changed_bits_on_the_way_never_reach_the_copy() {
    run(async {
        let (a, wal, replicas) = leader(1).await;
        for seed in 0..150 {
            let mut random = Random::new(seed);
            let (at, bit) = (random.next_u64() % 12_000, random.next_u64() % 8);
            let b = Disk::new(1000 + seed);
            let replica = replica_on(&b).await;
            let ended = through(&replicas, &replica, move |offset, bytes| {
                let place = at.checked_sub(offset).and_then(|place| usize::try_from(place).ok());
                if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
                    *byte ^= 1 << bit;
                }
                offset < 20_000
            });
            let ended = ended.await;
            let synced = replica.marks().synced;
            if synced > Lsn::ZERO {
                assert_identical(&a, &b, synced);
            }
            drop(replica);
            let replica = replica_on(&b).await;
            let link = Kept::new(&replicas, &replica);
            caught_up(&wal, &replica).await;
            assert_identical(&a, &b, replica.marks().synced);
            drop((link, ended));
        }
    });
}

/// Random bytes, and a sound beginning that random bytes follow, in both directions.
#[test]
fn random_bytes_end_the_connection() {
    run(async {
        let (_a, _wal, replicas) = leader(2).await;
        for seed in 0..300u64 {
            let mut random = Random::new(seed);
            let mut bytes = vec![0; usize::try_from(random.next_u64() % 3000).unwrap()];
            bytes.iter_mut().for_each(|byte| *byte = random.next_u64().to_le_bytes()[0]);
            let role = if seed % 2 == 0 { 1 } else { 2 };
            if seed % 3 != 0 {
                let preamble = [&b"HWREPL\r\n"[..], &[1, 0, role, 0, 0, 0, 0, 0]].concat();
                bytes.splice(0..0, preamble);
            }
            if seed % 3 == 2 && bytes.len() > 28 {
                // A sound header of a message of each kind, with a random length and body.
                let body_bytes = u32::try_from(random.next_u64() % 2000).unwrap();
                bytes[16..20].copy_from_slice(&body_bytes.to_le_bytes());
                bytes[20] = u8::try_from(seed % 11).unwrap();
                bytes[21..24].fill(0);
            }
            let (mut peer, ours) = tokio::io::duplex(1 << 16);
            peer.write_all(&bytes).await.unwrap();
            let ended = if role == 1 {
                let replica = replica_on(&Disk::new(seed)).await;
                replica.follow(ours, &Unauthenticated).await
            } else {
                replicas.serve(ours, &Unauthenticated).await
            };
            let _ = ended.unwrap_err();
            drop(peer);
        }
        assert!(replicas.peers().is_empty(), "no slot for a stranger");
    });
}

#[test]
fn peer_without_the_secret_sees_no_byte_of_the_log() {
    run(async {
        let (_a, wal, replicas) = leader(3).await;
        let replica = replica_on(&Disk::new(4)).await;
        let (near, far) = tokio::io::duplex(4096);
        let (copy, leading) = (replica.clone(), replicas.clone());
        let served =
            tokio::spawn(
                async move { leading.serve(near, &SharedSecret::new("the right one")).await },
            );
        let followed =
            tokio::spawn(async move { copy.follow(far, &SharedSecret::new("another one")).await });
        let is_refused =
            |error: &Error| matches!(error, Error::Authentication { .. } | Error::Connection(_));
        assert!(is_refused(&served.await.unwrap().unwrap_err()));
        assert!(is_refused(&followed.await.unwrap().unwrap_err()));
        assert_eq!(replica.marks().synced, Lsn::ZERO);

        let (near, far) = tokio::io::duplex(4096);
        let (copy, leading) = (replica.clone(), replicas.clone());
        let _served =
            tokio::spawn(
                async move { leading.serve(near, &SharedSecret::new("the right one")).await },
            );
        let _followed =
            tokio::spawn(
                async move { copy.follow(far, &SharedSecret::new("the right one")).await },
            );
        caught_up(&wal, &replica).await;

        // A stranger that only listens gets the preamble and the challenge: no log id, no mark.
        let (mut stranger, ours) = tokio::io::duplex(4096);
        let leading = replicas.clone();
        let served =
            tokio::spawn(
                async move { leading.serve(ours, &SharedSecret::new("the right one")).await },
            );
        stranger.write_all(b"HWREPL\r\n\x01\x00\x02\0\0\0\0\0").await.unwrap();
        let mut seen = Vec::new();
        stranger.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen.len(), 16 + 12 + 32);
        assert!(matches!(served.await.unwrap(), Err(Error::Timeout)));
    });
}

#[test]
fn half_open_connection_ends_on_both_sides() {
    run(async {
        let (_a, wal, replicas) = leader(5).await;
        let replica = replica_on(&Disk::new(6)).await;
        // The relay stops to forward and keeps both streams open.
        let (near, leader_end) = tokio::io::duplex(4096);
        let (far, replica_end) = tokio::io::duplex(4096);
        let (leading, copy) = (replicas.clone(), replica.clone());
        let served = tokio::spawn(async move { leading.serve(near, &Unauthenticated).await });
        let followed = tokio::spawn(async move { copy.follow(far, &Unauthenticated).await });
        let mut ends = (leader_end, replica_end);
        let forwarding = tokio::io::copy_bidirectional(&mut ends.0, &mut ends.1);
        let stopped = tokio::select! {
            _ = forwarding => false,
            () = caught_up(&wal, &replica) => true,
        };
        assert!(stopped);
        assert!(matches!(served.await.unwrap(), Err(Error::Timeout)));
        assert!(matches!(followed.await.unwrap(), Err(Error::Timeout)));
        assert!(replicas.peers().iter().all(|peer| !peer.is_connected));
        drop(ends);
    });
}

#[test]
fn second_connection_replaces_the_first() {
    run(async {
        let (_a, wal, replicas) = leader(7).await;
        let b = Disk::new(8);
        let replica = replica_on(&b).await;
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let leading = replicas.clone();
        let first = tokio::spawn(async move { leading.serve(near, &Unauthenticated).await });
        tokio::select! {
            ended = replica.follow(&mut far, &Unauthenticated) => panic!("{ended:?}"),
            () = caught_up(&wal, &replica) => {}
        }
        // The replica restarts, and its old connection is still open.
        let second = Kept::new(&replicas, &replica);
        replicas.append_and_replicate("over the second", 1).await.unwrap();
        let ended = first.await.unwrap().unwrap_err();
        assert!(matches!(ended, Error::Protocol { .. }), "{ended}");
        drop(far);
        second.cut().await;
    });
}

/// A replica that reads nothing costs the leader no append and no memory.
#[test]
fn dead_replica_does_not_delay_the_leader() {
    run(async {
        let (_a, wal, replicas) = leader(9).await;
        let (near, far) = tokio::io::duplex(256);
        let leading = replicas.clone();
        let served = tokio::spawn(async move { leading.serve(near, &Unauthenticated).await });
        for number in 0..100 {
            wal.append_and_sync(format!("{number:300}")).await.unwrap();
        }
        assert!(matches!(served.await.unwrap(), Err(Error::Timeout)));
        drop(far);
    });
}
