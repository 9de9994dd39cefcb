//! [`Replica::follow`]: one connection of a replica to its leader.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    auth::{Authenticate, Exchange},
    error::{Error, Result},
    marks::Marks,
    mistake::{self, Mistake},
    replica::{Inner, Replica, accept_epoch},
    standby::{Marker, State, Store},
    wire::{Begin, Message, Offer, Refusal, Report, Role, preamble, read_message, write_message},
};

/// How many messages wait for the disk, each of at most 1 MiB.
const QUEUE_MESSAGES: usize = 16;

impl Replica {
    /// Follows the leader at the other end of `stream`, until the connection ends.
    ///
    /// Returns only with the reason of the end. Call it again with the next connection: the copy
    /// continues where it was. Calls that overlap wait for each other.
    ///
    /// # Errors
    ///
    /// - [`Error::Connection`], [`Error::Timeout`]: connect again.
    /// - [`Error::Authentication`], [`Error::Preamble`], [`Error::Protocol`].
    /// - [`Error::Fenced`]: the leader is of an older term than this copy has promised.
    /// - [`Error::OtherLog`], [`Error::Diverged`], [`Error::Ahead`], [`Error::NoCommonPoint`],
    ///   [`Error::TooFarBehind`]: the copy can't follow this leader. Nothing was cut.
    /// - [`Error::Storage`]: the directory failed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the connection ends, and the running step completes.
    pub async fn follow<S>(&self, stream: S, auth: &dyn Authenticate) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let inner = self.inner();
        let _only = inner.connection.lock().await;
        let mut stream = stream;
        let limit = inner.options().timeout;
        let begun = timeout(limit, handshake(inner, &mut stream, auth)).await;
        let (offer, begin) = begun.map_err(|_| Error::Timeout)??;
        tracing::info!(name = inner.name(), at = %begin.at, "follows a leader");
        let (reader, writer) = split(stream);
        let (sender, queue) = mpsc::channel(QUEUE_MESSAGES);
        tokio::select! {
            ended = receive(reader, sender, limit) => ended,
            ended = take_in(inner, queue, offer.epoch) => ended,
            ended = report(writer, self.watch(), inner.options().heartbeat) => ended,
        }
    }
}

/// Runs the handshake. No byte of the log was sent before.
async fn handshake<S>(
    inner: &Arc<Inner>,
    stream: &mut S,
    auth: &dyn Authenticate,
) -> Result<(Offer, Begin)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    preamble(stream, Role::Replica).await?;
    auth.authenticate(Exchange::new(stream, Role::Replica)).await?;
    let offer = match read_message(stream).await? {
        Message::Offer(offer) => offer,
        _ => return Err(Error::Protocol { reason: "an offer must come first" }),
    };
    let name = inner.name().to_owned();
    let hello = inner.with_store(move |store| {
        accept_offer(store, offer)?;
        store.hello(&name)
    });
    let hello = match hello.await {
        Ok(hello) => hello,
        Err(error) => return refuse(stream, error).await,
    };
    let end = hello.end;
    write_message(stream, &Message::Hello(hello)).await?;
    stream.flush().await?;
    let begin = match read_message(stream).await? {
        Message::Begin(begin) => begin,
        Message::Refuse(refusal) => return Err(refused(refusal)),
        _ => return Err(Error::Protocol { reason: "a begin must follow the hello" }),
    };
    tracing::debug!(%end, at = %begin.at, "the common point is found");
    // A promise or a promotion may have come since the offer was accepted.
    let started = inner.with_store(move |store| {
        store.check_leader(offer.epoch)?;
        store.begin(begin)
    });
    match started.await {
        Ok(()) => Ok((offer, begin)),
        Err(error) => refuse(stream, error).await,
    }
}

/// Sends the reason of the end to the leader.
async fn refuse<T>(stream: &mut (impl AsyncWrite + Unpin), error: Error) -> Result<T> {
    let refusal = match error {
        Error::OtherLog => Some(Refusal::OtherLog),
        Error::Fenced { promised } => Some(Refusal::Fenced { promised }),
        Error::Diverged { common, end } => Some(Refusal::Diverged { common, end }),
        _ => None,
    };
    if let Some(refusal) = refusal {
        // The error of this side is the reason, also if it can't be sent.
        let _ = write_message(stream, &Message::Refuse(refusal)).await;
        let _ = stream.flush().await;
    }
    Err(error)
}

/// Checks the leader's log and epoch, and makes the promise durable.
fn accept_offer(store: &mut Store, offer: Offer) -> Result<()> {
    let marker = *store.marker();
    if marker.log_id.is_some_and(|id| id != offer.log_id) {
        return Err(Error::OtherLog);
    }
    if !mistake::is_on(Mistake::AcceptLowerEpoch) {
        let promised = marker.promise.max(store.epoch());
        let fenced = |error| match error {
            Error::LowerEpoch { .. } | Error::NotAStandby { .. } => Error::Fenced { promised },
            error => error,
        };
        accept_epoch(store, offer.epoch).map_err(fenced)?;
        store.check_leader(offer.epoch)?;
    }
    if marker.log_id.is_none() {
        let state = State::Seeding { goal: offer.synced };
        let promise = store.marker().promise;
        store.set_marker(Marker { log_id: Some(offer.log_id), promise, state })?;
    }
    Ok(())
}

/// Returns the error for a refusal of the leader.
fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::OtherLog => Error::OtherLog,
        Refusal::Fenced { promised } => Error::Fenced { promised },
        Refusal::Diverged { common, end } => Error::Diverged { common, end },
        Refusal::Ahead { synced, end } => Error::Ahead { synced, end },
        Refusal::TooFarBehind { first } => Error::TooFarBehind { first },
        Refusal::NoCommonPoint => Error::NoCommonPoint,
        Refusal::Name => Error::Name,
    }
}

/// Reads messages into the queue. If the queue is full, the leader waits.
async fn receive(
    mut reader: impl AsyncRead + Unpin,
    queue: mpsc::Sender<Message>,
    limit: Duration,
) -> Result<()> {
    loop {
        let message = timeout(limit, read_message(&mut reader)).await;
        match message.map_err(|_| Error::Timeout)?? {
            Message::Ping => {}
            message => {
                if queue.send(message).await.is_err() {
                    // The other half returns the reason.
                    return std::future::pending().await;
                }
            }
        }
    }
}

/// Takes the messages of the queue into the directory, all that wait with one flush.
async fn take_in(inner: &Arc<Inner>, mut queue: mpsc::Receiver<Message>, epoch: u64) -> Result<()> {
    let mut arrived = Vec::new();
    loop {
        if queue.recv_many(&mut arrived, QUEUE_MESSAGES).await == 0 {
            return std::future::pending().await;
        }
        let messages = std::mem::take(&mut arrived);
        let take = move |store: &mut Store| {
            store.check_leader(epoch)?;
            for message in messages {
                store.apply(message)?;
            }
            store.flush()
        };
        inner.with_store(take).await?;
    }
}

/// Sends the marks after each change, and from time to time.
async fn report(
    mut writer: impl AsyncWrite + Unpin,
    mut marks: watch::Receiver<Marks>,
    heartbeat: Duration,
) -> Result<()> {
    loop {
        let Marks { epoch, report, .. } = *marks.borrow_and_update();
        let report = Report { epoch, written: report.written, synced: report.synced };
        write_message(&mut writer, &Message::Report(report)).await?;
        writer.flush().await?;
        // The marks live as long as the copy.
        let _ = timeout(heartbeat, marks.changed()).await;
    }
}
