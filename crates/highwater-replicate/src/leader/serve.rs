//! [`Replicas::serve`]: one connection of a leader to a replica.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use highwater::{
    Error as LogError, Lsn,
    shipping::{self, Place, SegmentId},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    time::timeout,
};

use crate::{
    auth::{Authenticate, Exchange},
    error::{Error, Result},
    leader::{
        common::{Common, common_point},
        replicas::{Inner, Replicas},
    },
    positions::{after, bytes_between},
    wire::{
        Begin, DATA_BYTES_MAX, Hello, Message, NAME_BYTES_MAX, Offer, Refusal, Role, Segment,
        preamble, read_message, write_message,
    },
};

impl Replicas {
    /// Serves the replica at the other end of `stream`, until the connection ends.
    ///
    /// Returns only with the reason of the end. Run it in one task for each connection. A
    /// second connection with the same name ends the first.
    ///
    /// # Errors
    ///
    /// - [`Error::Connection`], [`Error::Timeout`]: the replica connects again.
    /// - [`Error::Authentication`], [`Error::Preamble`], [`Error::Protocol`], [`Error::Name`].
    /// - [`Error::Fenced`]: the replica has promised a higher line. From then on all calls that
    ///   wait for replicas fail.
    /// - [`Error::OtherLog`], [`Error::Diverged`], [`Error::Ahead`], [`Error::NoCommonPoint`],
    ///   [`Error::TooFarBehind`]: the copy can't follow this log.
    /// - [`Error::Log`]: the log failed or was closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the connection ends.
    pub async fn serve<S>(&self, stream: S, auth: &dyn Authenticate) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let inner = &self.inner;
        let mut stream = stream;
        let begun = timeout(inner.options.timeout, handshake(inner, &mut stream, auth)).await;
        let (hello, begin) = begun.map_err(|_| Error::Timeout)??;
        let started = async {
            let connection = Connection::begin(inner, &hello, begin.at).await?;
            write_message(&mut stream, &Message::Begin(begin)).await?;
            stream.flush().await?;
            Ok::<_, Error>(connection)
        };
        let started = timeout(inner.options.timeout, started).await;
        let connection = started.map_err(|_| Error::Timeout)??;
        tracing::info!(name = hello.name, at = %begin.at, "serves a replica");
        let (reader, writer) = split(stream);
        let shipper = Shipper { inner, writer, position: begin.at, segment: begin.segment };
        tokio::select! {
            ended = receive(inner, reader, &connection) => ended,
            ended = shipper.run() => ended,
            () = connection.replaced.notified() => Err(REPLACED),
        }
    }
}

const REPLACED: Error = Error::Protocol { reason: "the replica has connected again" };

/// The place of a connection among the peers.
struct Connection<'a> {
    inner: &'a Inner,
    name: String,
    number: u64,
    replaced: Arc<tokio::sync::Notify>,
}

impl<'a> Connection<'a> {
    /// Replaces an older connection of the same replica, and opens its slot.
    async fn begin(inner: &'a Inner, hello: &Hello, at: Lsn) -> Result<Self> {
        let name = hello.name.as_str();
        let (slot, replaced, number) = {
            let mut state = inner.peers.state();
            let (number, peer) = state.replace(name);
            peer.is_connected = true;
            (peer.slot.take(), Arc::clone(&peer.replaced), number)
        };
        let connection = Connection { inner, name: name.to_owned(), number, replaced };
        let first = inner.wal.watermarks().first;
        // Dropped here if it can't be used, because a slot has one handle.
        let usable = slot.filter(|slot| (first..=at).contains(&slot.position()));
        let slot = match usable {
            Some(slot) => slot,
            None => inner.open_slot(name, at).await?,
        };
        // The mark stays empty until the first report, because the leader does not know whether the
        // copy is complete.
        inner.peers.state().current(name, number).ok_or(REPLACED)?.slot = Some(slot);
        Ok(connection)
    }

    /// Moves the slot to the durable position of the replica. At the end of a segment it stays: the
    /// next connection needs the newest segment of the replica, which a truncation would free.
    fn advance_slot(&self) {
        let mut state = self.inner.peers.state();
        let Some(peer) = state.current(&self.name, self.number) else { return };
        let synced = peer.synced;
        let Some(slot) = &peer.slot else { return };
        if synced > slot.position() && !self.inner.begins_segment(synced) {
            // A slot that was lost stays lost; the next connection makes it again.
            let _ = slot.advance(synced);
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        let mut state = self.inner.peers.state();
        if let Some(peer) = state.current(&self.name, self.number) {
            peer.is_connected = false;
        }
    }
}

/// Runs the handshake up to the position at which the replica continues.
async fn handshake<S>(
    inner: &Inner,
    stream: &mut S,
    auth: &dyn Authenticate,
) -> Result<(Hello, Begin)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    preamble(stream, Role::Leader).await?;
    auth.authenticate(Exchange::new(stream, Role::Leader)).await?;
    let marks = inner.wal.watermarks();
    let offer = Offer {
        log_id: inner.source.log_id(),
        epoch: inner.source.epoch(),
        first: marks.first,
        synced: inner.source.synced(),
    };
    write_message(stream, &Message::Offer(offer)).await?;
    stream.flush().await?;
    let hello = match read_message(stream).await? {
        Message::Hello(hello) => hello,
        Message::Refuse(refusal) => return Err(refused(inner, refusal)),
        _ => return Err(Error::Protocol { reason: "a hello must follow the offer" }),
    };
    match begin_at(inner, &hello).await {
        Ok(begin) => Ok((hello, begin)),
        Err(error) => {
            if let Some(refusal) = refusal_of(&error) {
                // The error of this side is the reason, also if it can't be sent.
                let _ = write_message(stream, &Message::Refuse(refusal)).await;
                let _ = stream.flush().await;
            }
            Err(error)
        }
    }
}

fn refusal_of(error: &Error) -> Option<Refusal> {
    Some(match *error {
        Error::OtherLog => Refusal::OtherLog,
        Error::Diverged { common, end } => Refusal::Diverged { common, end },
        Error::Ahead { synced, end } => Refusal::Ahead { synced, end },
        Error::TooFarBehind { first } => Refusal::TooFarBehind { first },
        Error::NoCommonPoint => Refusal::NoCommonPoint,
        Error::Name => Refusal::Name,
        _ => return None,
    })
}

/// Returns the error for a refusal of the replica, and notes a fence.
fn refused(inner: &Inner, refusal: Refusal) -> Error {
    match refusal {
        Refusal::Fenced { promised } => {
            if shipping::line_of(promised) <= shipping::line_of(inner.source.epoch()) {
                return Error::Protocol { reason: "a promise that is not above the leader's line" };
            }
            inner.peers.fence(promised);
            Error::Fenced { promised }
        }
        Refusal::OtherLog => Error::OtherLog,
        Refusal::Diverged { common, end } => Error::Diverged { common, end },
        _ => Error::Protocol { reason: "the replica refused without a known reason" },
    }
}

/// Finds the position at which the replica continues.
async fn begin_at(inner: &Inner, hello: &Hello) -> Result<Begin> {
    if hello.name.is_empty() || hello.name.len() > NAME_BYTES_MAX {
        return Err(Error::Name);
    }
    if hello.log_id.is_some_and(|id| id != inner.source.log_id()) {
        return Err(Error::OtherLog);
    }
    inner.peers.greet(&hello.name);
    let (segments, synced) = inner.source.segments();
    let first = segments.first().map_or(Lsn::ZERO, |oldest| oldest.base);
    match common_point(&segments, synced, &hello.segments, hello.end) {
        Common::Empty => Ok(Begin { at: first, segment: None, end: None }),
        Common::Nothing if hello.end < first => Err(Error::TooFarBehind { first }),
        Common::Nothing => Err(Error::NoCommonPoint),
        Common::Ahead { at } => Err(Error::Ahead { synced: at, end: hello.end }),
        Common::At { segment, at } => {
            check_tail(inner, hello, segment, at).await?;
            let at = at.min(hello.committed);
            if at < segment.base {
                return Err(Error::Protocol { reason: "a segment whose beginning is not durable" });
            }
            let next = segments.iter().skip_while(|other| **other != segment).nth(1);
            Ok(Begin { at, segment: Some(segment), end: next.map(|next| next.base) })
        }
    }
}

/// Compares the last durable bytes of the copy with the log, as far as both have them.
async fn check_tail(inner: &Inner, hello: &Hello, segment: SegmentId, at: Lsn) -> Result<()> {
    let newest = hello.segments.last();
    let Some(tail) = hello.tail.filter(|tail| newest == Some(&segment) && tail.to <= at) else {
        return Ok(());
    };
    let bytes = bytes_between(tail.from, tail.to);
    if tail.from < segment.base || bytes > DATA_BYTES_MAX {
        return Err(Error::Protocol {
            reason: "the checked range of a hello is not in its segment",
        });
    }
    let place = inner.source.place(tail.from)?;
    if place.segment != segment {
        return Ok(());
    }
    let own = inner.source.read(place, tail.from, bytes, Vec::new()).await?;
    if crc32c::crc32c(&own) == tail.crc {
        return Ok(());
    }
    Err(Error::Diverged { common: tail.from, end: hello.end })
}

/// Reads the reports of the replica.
async fn receive(
    inner: &Inner,
    mut reader: impl AsyncRead + Unpin,
    connection: &Connection<'_>,
) -> Result<()> {
    let mut advanced = tokio::time::Instant::now();
    loop {
        let message = timeout(inner.options.timeout, read_message(&mut reader)).await;
        match message.map_err(|_| Error::Timeout)?? {
            Message::Report(report) => {
                let synced = inner.source.synced();
                if report.synced > synced || report.synced > report.written {
                    return Err(Error::Protocol { reason: "a report is above the log" });
                }
                inner.peers.report((&connection.name, connection.number), report);
                if advanced.elapsed() >= SLOT_INTERVAL.min(inner.options.heartbeat) {
                    connection.advance_slot();
                    advanced = tokio::time::Instant::now();
                }
            }
            Message::Refuse(refusal) => return Err(refused(inner, refusal)),
            Message::Ping => {}
            _ => return Err(Error::Protocol { reason: "a replica sends reports alone" }),
        }
    }
}

/// How often a slot moves. Each move is a record in the log.
const SLOT_INTERVAL: Duration = Duration::from_secs(1);

/// Sends the durable bytes of the log, in order.
struct Shipper<'a, W> {
    inner: &'a Inner,
    writer: W,
    position: Lsn,
    /// The segment that the replica has open.
    segment: Option<SegmentId>,
}

impl<W: AsyncWrite + Unpin> Shipper<'_, W> {
    async fn run(mut self) -> Result<()> {
        let mut epoch = self.inner.source.epoch();
        loop {
            let place = self.place()?;
            if place.epoch != epoch {
                // A cut at or below the position removed bytes that were sent.
                if self.inner.source.cut_since(epoch).is_some_and(|cut| cut < self.position) {
                    return Err(Error::Protocol { reason: "the end of the log was truncated" });
                }
                epoch = place.epoch;
            }
            if self.position >= place.synced {
                self.wait(place.synced).await?;
                continue;
            }
            if self.segment != Some(place.segment) {
                let header = self.inner.source.header(place.sequence).await?;
                let header = Bytes::copy_from_slice(header.encoded());
                let segment = Segment { end: place.end, header };
                write_message(&mut self.writer, &Message::Segment(segment)).await?;
                self.segment = Some(place.segment);
            }
            self.send(place).await?;
        }
    }

    /// Returns the segment of the position.
    fn place(&self) -> Result<Place> {
        self.inner.source.place(self.position).map_err(|error| match error {
            LogError::BelowFirst { first, .. } => Error::TooFarBehind { first },
            error => error.into(),
        })
    }

    /// Sends the bytes of one segment up to the synced mark, and the commit message.
    async fn send(&mut self, place: Place) -> Result<()> {
        let until = place.end.map_or(place.synced, |end| end.min(place.synced));
        let mut buffer = Vec::new();
        while self.position < until {
            let bytes = self.inner.source.read(place, self.position, DATA_BYTES_MAX, buffer).await;
            let bytes = bytes.map_err(|error| self.explain(error))?;
            if bytes.is_empty() {
                return Err(Error::Protocol { reason: "the log has no bytes below its mark" });
            }
            let (lsn, count) = (self.position, bytes.len());
            let data = Message::Data { lsn, bytes: Bytes::from(bytes) };
            write_message(&mut self.writer, &data).await?;
            self.position = after(lsn, count);
            buffer = Vec::new();
        }
        write_message(&mut self.writer, &Message::Commit { lsn: until }).await?;
        Ok(self.writer.flush().await?)
    }

    /// A segment that was removed beyond the limit of the slot is no damage.
    fn explain(&self, error: LogError) -> Error {
        let first = self.inner.wal.watermarks().first;
        if self.position < first { Error::TooFarBehind { first } } else { error.into() }
    }

    /// Waits until the synced mark passes the position. Sends pings meanwhile.
    async fn wait(&mut self, synced: Lsn) -> Result<()> {
        let lsn = self.position.max(synced);
        match timeout(self.inner.options.heartbeat, self.inner.wal.wait_synced(lsn)).await {
            Ok(Ok(()) | Err(LogError::Truncated { .. })) => Ok(()),
            Ok(Err(error)) if error.is_indeterminate() => {
                tokio::time::sleep(self.inner.options.heartbeat).await;
                self.ping().await
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => self.ping().await,
        }
    }

    async fn ping(&mut self) -> Result<()> {
        write_message(&mut self.writer, &Message::Ping).await?;
        Ok(self.writer.flush().await?)
    }
}
