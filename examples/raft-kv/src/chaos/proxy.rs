//! Proxies on the links between nodes, which can delay or stop the bytes.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Open,
    /// Bytes arrive after this delay.
    Slow(Duration),
    /// Nothing arrives. Bytes that were sent arrive when the link opens again.
    Cut,
}

/// The link from one node to another. It affects requests and responses, because both directions of
/// a connection pass through it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The address to which `from` connects.
    pub(crate) address: String,
    condition: watch::Sender<Condition>,
    accepting: AbortHandle,
}

impl Link {
    pub(crate) async fn open(from: u64, to: u64, target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (condition, watched) = watch::channel(Condition::Open);
        let accepting = tokio::spawn(accept(listener, target.into(), watched)).abort_handle();
        Ok(Link { from, to, address, condition, accepting })
    }

    pub(crate) fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: Arc<str>, condition: watch::Receiver<Condition>) {
    while let Ok((incoming, _)) = listener.accept().await {
        let (target, condition) = (Arc::clone(&target), condition.clone());
        tokio::spawn(async move {
            // If the node is down, the link closes the connection, too.
            let Ok(outgoing) = TcpStream::connect(&*target).await else { return };
            let _ = (incoming.set_nodelay(true), outgoing.set_nodelay(true));
            let (from, back) = incoming.into_split();
            let (responses, to) = outgoing.into_split();
            // The connection ends when either side ends.
            tokio::select! {
                _ = pump(from, to, condition.clone()) => {}
                _ = pump(responses, back, condition) => {}
            }
        });
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut condition: watch::Receiver<Condition>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let is_open = |condition: &Condition| *condition != Condition::Cut;
        let now = *condition.wait_for(is_open).await.map_err(io::Error::other)?;
        if let Condition::Slow(by) = now {
            sleep(by).await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}
