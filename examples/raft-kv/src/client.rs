//! A client that finds the leader and repeats requests. A repeated command is applied only once.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    protocol::{Reply, Request},
    types::{Change, Command},
};

/// The time limit for one node's reply, after which the client tries another node.
const NODE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(crate) struct Client {
    nodes: Vec<String>,
    /// The address of the next request: one of `nodes`, or the leader that a node has named.
    address: String,
    node_index: usize,
    stream: Option<BufStream<TcpStream>>,
    session: u64,
    number: u64,
    /// The time limit for the first attempt of the next request, if it is not [`NODE_TIMEOUT`].
    first_timeout: Option<Duration>,
}

impl Client {
    /// Creates a client of the nodes with these client addresses.
    ///
    /// Only one client may use a session, because the nodes recognize repeated commands by their
    /// session and number.
    pub(crate) fn new(nodes: Vec<String>, session: u64) -> Self {
        let address = nodes.first().cloned().unwrap_or_default();
        Client {
            nodes,
            address,
            node_index: 0,
            stream: None,
            session,
            number: 0,
            first_timeout: None,
        }
    }

    /// Starts a new session. Earlier commands without a reply may still be applied.
    pub(crate) fn begin_session(&mut self, session: u64) {
        (self.session, self.number) = (session, 0);
        self.stream = None;
    }

    /// Sets the time limit of the next request's first attempt. With a short limit the client sends
    /// a command twice, and probably both copies arrive.
    pub(crate) fn shorten_first_attempt(&mut self, time_limit: Duration) {
        self.first_timeout = Some(time_limit);
    }

    /// Sends the next request to this node.
    pub(crate) fn use_node(&mut self, index: usize) {
        self.node_index = index;
        self.use_address(self.nodes[index % self.nodes.len()].clone());
    }

    fn use_address(&mut self, address: String) {
        if self.address != address {
            (self.address, self.stream) = (address, None);
        }
    }

    pub(crate) async fn write(&mut self, change: Change, within: Duration) -> io::Result<Reply> {
        self.number += 1;
        let command = Command { session: self.session, number: self.number, change };
        self.send(&Request::Write(command), within).await
    }

    pub(crate) async fn get(&mut self, key: &str, within: Duration) -> io::Result<Reply> {
        self.send(&Request::Get { key: key.to_owned() }, within).await
    }

    /// Sends a request until a node replies.
    ///
    /// # Errors
    ///
    /// If there is no reply in time. The request may have been done, or may still be done later.
    pub(crate) async fn send(&mut self, request: &Request, within: Duration) -> io::Result<Reply> {
        let deadline = Instant::now() + within;
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        while Instant::now() < deadline {
            let time_limit = self.first_timeout.take().unwrap_or(NODE_TIMEOUT);
            match timeout_at(deadline.min(Instant::now() + time_limit), self.exchange(request))
                .await
            {
                Ok(Ok(Reply::Leader(address))) if address != self.address => {
                    self.use_address(address);
                    continue;
                }
                Ok(Ok(Reply::Leader(_))) => {}
                Ok(Ok(Reply::Retry(reason))) => last = io::Error::other(reason),
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
            self.use_node(self.node_index + 1);
            sleep(PAUSE).await;
        }
        Err(last)
    }

    async fn exchange(&mut self, request: &Request) -> io::Result<Reply> {
        // Puts the stream back only after a complete reply, so that a late reply is not read as the
        // reply to the next request.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address).await?,
        };
        let reply = exchange(&mut stream, request).await?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

async fn connect(address: &str) -> io::Result<BufStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufStream::new(stream))
}

async fn exchange(stream: &mut BufStream<TcpStream>, request: &Request) -> io::Result<Reply> {
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    stream.flush().await?;
    let mut line = String::new();
    // A killed node may have sent an incomplete line.
    if stream.read_line(&mut line).await? == 0 || !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.parse().map_err(io::Error::other)
}

/// Sends a request to one node, once.
pub(crate) async fn send_once(
    address: &str,
    request: &Request,
    within: Duration,
) -> io::Result<Reply> {
    let reply = async { exchange(&mut connect(address).await?, request).await };
    timeout(within, reply).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
