//! Serves a log over TCP.
//!
//! The server responds to an append with `OK` only after the line is on stable storage. All
//! connections share the flushes of the log. Without arguments the example starts a server and 64
//! clients, restarts the server, and checks every acknowledged line. To run it:
//!
//! ```text
//! cargo run --release --example log_server                  # server and clients; ends by itself
//! cargo run --release --example log_server -- --serve DIR   # only a server, until ctrl-c
//! ```
//!
//! A client such as `nc` sends one request per line:
//!
//! | request | response |
//! |---|---|
//! | `APPEND <text>` | `OK <lsn>`, once the line is durable |
//! | `READ <lsn>` | `OK <text>` |
//! | `TAIL <lsn>` | `<lsn> <text>` for each durable line from this LSN on, then `END` |
//! | any | `ERR <reason>` if the request failed |
//!
//! Reads return only durable lines. Otherwise a power loss could remove a line that a client has
//! read.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use highwater::{Lsn, Wal};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

const CLIENT_COUNT: usize = 64;
const LINES_EACH: usize = 200;
const DEMO_TIME_MAX: Duration = Duration::from_secs(60);
const CONNECTION_COUNT_MAX: usize = 1024;
const REQUEST_BYTES_MAX: u64 = 64 << 10;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => timeout(DEMO_TIME_MAX, demo()).await?,
        ["--serve", directory] => serve(Path::new(directory)).await,
        _ => Err("usage: log_server [--serve DIR]".into()),
    }
}

/// Runs a server until ctrl-c.
async fn serve(directory: &Path) -> Result<()> {
    let server = Server::start(directory).await?;
    println!("listening on {}; press ctrl-c to stop", server.address);
    tokio::signal::ctrl_c().await?;
    server.stop().await
}

/// Runs a server and its clients, restarts the server, and checks every line it acknowledged.
async fn demo() -> Result<()> {
    let directory = tempfile::tempdir()?;

    let server = Server::start(directory.path()).await?;
    let begun = Instant::now();
    let acknowledged = append_lines(server.address).await?;
    print_rates(acknowledged.len(), begun.elapsed(), server.wal.stats().sync_count);
    server.stop().await?;

    let server = Server::start(directory.path()).await?;
    check_lines(server.address, &acknowledged).await?;
    server.stop().await
}

// ---- the server ------------------------------------------------------------------------------

struct Server {
    wal: Wal,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Server {
    async fn start(directory: &Path) -> Result<Server> {
        let wal = Wal::open(directory).await?;
        println!("{}", wal.recovery());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let accepting = tokio::spawn(accept(listener, wal.clone(), stopped));
        Ok(Server { wal, address, stop, accepting })
    }

    async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.accepting.await?;
        self.wal.close().await?;
        Ok(())
    }
}

/// Accepts connections until `stopped`, and then drops the open ones. If a dropped connection was
/// appending a line, the log has the whole line or nothing of it.
async fn accept(listener: TcpListener, wal: Wal, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(ended) = connections.join_next() => {
                if let Ok(Err(error)) = ended {
                    eprintln!("a connection ended: {error:#}");
                }
            }
            accepted = listener.accept(), if connections.len() < CONNECTION_COUNT_MAX => {
                match accepted {
                    Ok((stream, _)) => drop(connections.spawn(serve_client(stream, wal.clone()))),
                    Err(error) => {
                        eprintln!("cannot accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    }
    connections.shutdown().await;
}

/// Handles the requests of one connection, one after the other, until the client disconnects.
async fn serve_client(stream: TcpStream, wal: Wal) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    while let Some(request) = read_line(&mut stream).await? {
        if let Err(error) = respond(&wal, &request, &mut stream).await {
            stream.write_all(format!("ERR {error:#}\n").as_bytes()).await?;
        }
        stream.flush().await?;
    }
    Ok(())
}

async fn respond(wal: &Wal, request: &str, stream: &mut BufStream<TcpStream>) -> Result<()> {
    match request.split_once(' ') {
        Some(("APPEND", text)) => {
            let lsn = wal.append_and_sync(text).await?;
            stream.write_all(format!("OK {lsn}\n").as_bytes()).await?;
        }
        Some(("READ", lsn)) => {
            let lsn = durable(wal, lsn)?;
            let text = wal.read(lsn).await?.payload;
            stream.write_all(&[b"OK ", text.as_ref(), b"\n"].concat()).await?;
        }
        Some(("TAIL", lsn)) => {
            let from = durable(wal, lsn)?;
            let mut records = wal.replay(from..wal.watermarks().synced);
            while let Some(record) = records.try_next().await? {
                let head = format!("{} ", record.lsn);
                stream
                    .write_all(&[head.as_bytes(), record.payload.as_ref(), b"\n"].concat())
                    .await?;
            }
            stream.write_all(b"END\n").await?;
        }
        _ => return Err("unknown request; send APPEND <text>, READ <lsn> or TAIL <lsn>".into()),
    }
    Ok(())
}

/// Parses the LSN of a request, and checks that it is below the synced mark.
fn durable(wal: &Wal, lsn: &str) -> Result<Lsn> {
    let lsn = lsn.parse().map_err(|_| format!("`{lsn}` is not an LSN"))?;
    let lsn = Lsn::new(lsn);
    let synced = wal.watermarks().synced;
    if lsn >= synced {
        return Err(
            format!("LSN {lsn} is not durable yet; the log is durable up to {synced}").into()
        );
    }
    Ok(lsn)
}

/// Reads a line, without its line end. Returns `None` at the end of the connection.
///
/// A line may have at most [`REQUEST_BYTES_MAX`] bytes, which limits the memory of a connection.
async fn read_line(stream: &mut BufStream<TcpStream>) -> Result<Option<String>> {
    let mut line = String::new();
    let byte_count = stream.take(REQUEST_BYTES_MAX).read_line(&mut line).await?;
    if byte_count == 0 {
        return Ok(None);
    }
    match line.strip_suffix('\n') {
        Some(line) => Ok(Some(line.trim_end_matches('\r').to_owned())),
        None => Err("the line is too long, or the connection ended inside it".into()),
    }
}

// ---- the clients -----------------------------------------------------------------------------

/// A line that the server has acknowledged.
struct Acknowledged {
    lsn: String,
    text: String,
}

/// Appends lines through many connections at the same time.
async fn append_lines(address: SocketAddr) -> Result<Vec<Acknowledged>> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENT_COUNT {
        clients.spawn(append_from(client, address));
    }
    let mut acknowledged = Vec::new();
    while let Some(lines) = clients.join_next().await {
        acknowledged.extend(lines??);
    }
    Ok(acknowledged)
}

async fn append_from(client: usize, address: SocketAddr) -> Result<Vec<Acknowledged>> {
    let mut server = connect(address).await?;
    let mut acknowledged = Vec::new();
    for number in 0..LINES_EACH {
        let text = format!("line {number} of client {client}");
        let lsn = request(&mut server, &format!("APPEND {text}")).await?;
        acknowledged.push(Acknowledged { lsn, text });
    }
    Ok(acknowledged)
}

/// Checks that the log has every acknowledged line and no other lines.
async fn check_lines(address: SocketAddr, acknowledged: &[Acknowledged]) -> Result<()> {
    let mut server = connect(address).await?;
    for Acknowledged { lsn, text } in acknowledged {
        let found = request(&mut server, &format!("READ {lsn}")).await?;
        if found != *text {
            return Err(format!("LSN {lsn} was acknowledged as `{text}`, but has `{found}`").into());
        }
    }
    let line_count = count_tail(&mut server).await?;
    if line_count != acknowledged.len() {
        return Err(format!(
            "{} lines were acknowledged, but the log has {line_count}",
            acknowledged.len()
        )
        .into());
    }
    println!("after a restart the log has all {line_count} acknowledged lines and no others");
    Ok(())
}

async fn count_tail(server: &mut BufStream<TcpStream>) -> Result<usize> {
    server.write_all(b"TAIL 0\n").await?;
    server.flush().await?;
    let mut line_count = 0;
    loop {
        let line = read_line(server).await?.ok_or("the server closed the connection")?;
        match line.as_str() {
            "END" => return Ok(line_count),
            line if line.starts_with("ERR ") => return Err(line.into()),
            _ => line_count += 1,
        }
    }
}

async fn connect(address: SocketAddr) -> Result<BufStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufStream::new(stream))
}

/// Sends a request and returns the text after `OK`.
async fn request(server: &mut BufStream<TcpStream>, text: &str) -> Result<String> {
    server.write_all(format!("{text}\n").as_bytes()).await?;
    server.flush().await?;
    let line = read_line(server).await?.ok_or("the server closed the connection")?;
    let response = line.strip_prefix("OK ").ok_or_else(|| format!("{text}: {line}"))?;
    Ok(response.to_owned())
}

#[allow(clippy::cast_precision_loss, reason = "the rates are only printed")]
fn print_rates(lines: usize, elapsed: Duration, fsyncs: u64) {
    println!(
        "{CLIENT_COUNT} clients: {lines} durable lines in {elapsed:.2?}, {:.0} per second, \
         {:.1} per fsync",
        lines as f64 / elapsed.as_secs_f64(),
        lines as f64 / fsyncs.max(1) as f64,
    );
}
