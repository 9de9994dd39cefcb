//! A client: it finds the leader, asks again what wasn't answered, and is applied once all the same.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    protocol::{Ask, Reply},
    types::{Change, Command},
};

/// A node that says nothing for so long is asked no further; another one may be alive.
const NODE_PATIENCE: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(crate) struct Client {
    nodes: Vec<String>,
    /// Whom it asks: one of the nodes, or where one of them has sent it.
    address: String,
    turn: usize,
    stream: Option<BufStream<TcpStream>>,
    session: u64,
    number: u64,
    /// How long the next request's first attempt may take, if that is for somebody to say.
    first_patience: Option<Duration>,
}

impl Client {
    /// `nodes` are addresses for clients. A session is one client's alone: of whoever shares it, the
    /// commands would be taken for each other's.
    pub(crate) fn new(nodes: Vec<String>, session: u64) -> Self {
        let address = nodes.first().cloned().unwrap_or_default();
        Client { nodes, address, turn: 0, stream: None, session, number: 0, first_patience: None }
    }

    /// From now on another client as far as the nodes know, and so one whose earlier commands may
    /// still come to be applied.
    pub(crate) fn begin_session(&mut self, session: u64) {
        (self.session, self.number) = (session, 0);
        self.stream = None;
    }

    /// Asks again soon for once: the first of the two commands is likely to be applied as well.
    pub(crate) fn be_hasty(&mut self, patience: Duration) {
        self.first_patience = Some(patience);
    }

    /// Asks this node first.
    pub(crate) fn turn_to(&mut self, index: usize) {
        self.turn = index;
        self.go_to(self.nodes[index % self.nodes.len()].clone());
    }

    fn go_to(&mut self, address: String) {
        if self.address != address {
            (self.address, self.stream) = (address, None);
        }
    }

    pub(crate) async fn write(&mut self, change: Change, within: Duration) -> io::Result<Reply> {
        self.number += 1;
        let command = Command { session: self.session, number: self.number, change };
        self.ask(&Ask::Write(command), within).await
    }

    pub(crate) async fn get(&mut self, key: &str, within: Duration) -> io::Result<Reply> {
        self.ask(&Ask::Get { key: key.to_owned() }, within).await
    }

    /// Asks until there is an answer. An error is that there was none in time: what was asked for may
    /// have been done, or may yet be.
    pub(crate) async fn ask(&mut self, ask: &Ask, within: Duration) -> io::Result<Reply> {
        let deadline = Instant::now() + within;
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        while Instant::now() < deadline {
            let patience = self.first_patience.take().unwrap_or(NODE_PATIENCE);
            match timeout_at(deadline.min(Instant::now() + patience), self.exchange(ask)).await {
                Ok(Ok(Reply::Leader(address))) if address != self.address => {
                    self.go_to(address);
                    continue;
                }
                Ok(Ok(Reply::Leader(_))) => {}
                Ok(Ok(Reply::Retry(why))) => last = io::Error::other(why),
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
            self.turn_to(self.turn + 1);
            sleep(PAUSE).await;
        }
        Err(last)
    }

    async fn exchange(&mut self, ask: &Ask) -> io::Result<Reply> {
        // Put back only after a whole answer: a late one is not taken for that of the next request.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address).await?,
        };
        let reply = exchange(&mut stream, ask).await?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

async fn connect(address: &str) -> io::Result<BufStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(BufStream::new(stream))
}

async fn exchange(stream: &mut BufStream<TcpStream>, ask: &Ask) -> io::Result<Reply> {
    stream.write_all(format!("{ask}\n").as_bytes()).await?;
    stream.flush().await?;
    let mut line = String::new();
    // A node that was killed may have sent half a line.
    if stream.read_line(&mut line).await? == 0 || !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.parse().map_err(io::Error::other)
}

/// Asks one node once.
pub(crate) async fn ask_node(address: &str, ask: &Ask, within: Duration) -> io::Result<Reply> {
    let asked = async { exchange(&mut connect(address).await?, ask).await };
    timeout(within, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
