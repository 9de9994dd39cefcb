//! A leader and two replicas over TCP, with a shared secret. The leader stops, and a copy is
//! promoted.

use std::{net::SocketAddr, time::Duration};

use highwater::Wal;
use highwater_replicate::{Options, Replica, Replicas, SharedSecret};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

type Failed = Box<dyn std::error::Error>;

fn secret() -> SharedSecret {
    SharedSecret::new("32 random bytes from a secret store")
}

/// Serves replicas until the task is aborted.
fn lead(replicas: Replicas, listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let replicas = replicas.clone();
            connections.spawn(async move {
                let _ = stream.set_nodelay(true);
                replicas.serve(stream, &secret()).await
            });
        }
    })
}

/// Follows the leader, and connects again when the connection ends.
fn follow(replica: Replica, leader: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Ok(stream) = TcpStream::connect(leader).await {
                let _ = stream.set_nodelay(true);
                if let Err(ended) = replica.follow(stream, &secret()).await {
                    eprintln!("a connection ended: {ended}");
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);

    let wal = Wal::open(at("a")).await?;
    let replicas = Replicas::new(&wal, Options::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let leading = lead(replicas.clone(), listener);
    let b = Replica::open("b", at("b"), Options::default()).await?;
    let c = Replica::open("c", at("c"), Options::default()).await?;
    let following = [follow(b.clone(), address), follow(c.clone(), address)];
    for number in 0..1000 {
        replicas.append_and_replicate(format!("record {number}"), 1).await?;
    }
    eprintln!("{:?}", replicas.peers());

    // The leader stops.
    leading.abort();
    drop((replicas, wal));

    // Both replicas promise the next epoch. Then the one with the highest rank has each record that
    // was acknowledged, because k = 1 and both of two replicas have promised.
    let epoch = b.next_epoch().await?;
    let (of_b, of_c) = (b.promise(epoch).await?, c.promise(epoch).await?);
    following.iter().for_each(JoinHandle::abort);
    let best = if of_b.rank() >= of_c.rank() { b } else { c };
    let wal = best.promote(epoch).await?;
    let lsn = wal.append_and_sync("of the new leader").await?;
    eprintln!("promoted; the first record of the new leader is at {lsn}");
    wal.close().await?;
    Ok(())
}
