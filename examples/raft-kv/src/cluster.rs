//! Nodes as child processes, which end with this process.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::{
    client::send_once,
    protocol::{Reply, Request},
    random::Random,
    types::Addresses,
};

/// A node, which may be running. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pub(crate) id: u64,
    pub(crate) addresses: Addresses,
    directory: PathBuf,
    arguments: Vec<OsString>,
    child: Option<Child>,
}

impl NodeProcess {
    /// Creates a node that is not running.
    ///
    /// `arguments` are the node's further options, besides its ID, directory and addresses. The
    /// node stores its data in `<directory>/node-<id>` and its output in
    /// `<directory>/node-<id>.log`.
    pub(crate) fn new(
        id: u64,
        addresses: Addresses,
        directory: &Path,
        arguments: Vec<OsString>,
    ) -> Self {
        NodeProcess { id, addresses, directory: directory.to_owned(), arguments, child: None }
    }

    /// Starts the node if it is not running. `arguments` apply only to this run.
    pub(crate) fn start(&mut self, arguments: &[OsString]) -> io::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let file = format!("node-{}.log", self.id);
        let log = File::options().create(true).append(true).open(self.directory.join(file))?;
        // The pipe stays open while this process lives, and the node ends when it is closed.
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "--end-with-input", "--id", &self.id.to_string()])
            .args(["--peers", &self.addresses.peers, "--clients", &self.addresses.clients])
            .arg("--directory")
            .arg(self.directory.join(format!("node-{}", self.id)))
            .args(&self.arguments)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Sends `SIGKILL` and waits until the process has ended.
    pub(crate) fn kill(&mut self) {
        self.signal_kill();
        self.reap();
    }

    /// Sends `SIGKILL` without waiting, so that several nodes can be killed at the same time. Call
    /// `reap` afterwards.
    pub(crate) fn signal_kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }

    pub(crate) fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Sends `SIGSTOP`.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Sends `SIGCONT`.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match &self.child {
            Some(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            None => Ok(()),
        }
    }

    /// Returns the exit status if the process has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Queries the nodes until at least `count` of them have a status that matches.
///
/// Returns these statuses.
///
/// # Errors
///
/// If too few nodes match within the time limit.
pub(crate) async fn wait_for(
    addresses: &[String],
    count: usize,
    within: Duration,
    matches: impl Fn(&str) -> bool,
) -> io::Result<Vec<String>> {
    let deadline = Instant::now() + within;
    loop {
        let mut found = Vec::new();
        for address in addresses {
            let reply = send_once(address, &Request::Status, Duration::from_millis(500)).await;
            match reply {
                Ok(Reply::Status(status)) if matches(&status) => found.push(status),
                _ => {}
            }
        }
        if found.len() >= count {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "too few nodes reached the expected status",
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Returns the value of a field in a status line; empty if there is none.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let mut fields = status.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

/// Returns free loopback addresses.
///
/// Their ports are below the ephemeral ports of outgoing connections. So a node that is down for a
/// while can use its port again.
pub(crate) fn free_addresses(count: usize) -> io::Result<Vec<String>> {
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
    let mut random = Random::new(clock.subsec_nanos().into());
    let mut held = Vec::new();
    for _ in 0..1_000 {
        if held.len() == count {
            break;
        }
        let port = 12_000 + random.below(20_000);
        held.extend(TcpListener::bind(format!("127.0.0.1:{port}")));
    }
    if held.len() < count {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "found too few free ports"));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

pub(crate) fn free_nodes(count: usize) -> io::Result<Vec<Addresses>> {
    let addresses = free_addresses(2 * count)?;
    let node = |pair: &[String]| Addresses { peers: pair[0].clone(), clients: pair[1].clone() };
    Ok(addresses.chunks(2).map(node).collect())
}
