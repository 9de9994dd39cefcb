//! Nodes as processes of their own, which end with this one.

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
    client::ask_node,
    protocol::{Ask, Reply},
    random::Random,
    types::Addresses,
};

/// A node, running or not. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pub(crate) id: u64,
    pub(crate) addresses: Addresses,
    directory: PathBuf,
    arguments: Vec<OsString>,
    child: Option<Child>,
}

impl NodeProcess {
    /// `arguments` are the node's options but for those that follow from its id, directory and
    /// addresses. Its data goes to `<directory>/node-<id>`, what it says to `node-<id>.log`.
    pub(crate) fn new(
        id: u64,
        addresses: Addresses,
        directory: &Path,
        arguments: Vec<OsString>,
    ) -> Self {
        NodeProcess { id, addresses, directory: directory.to_owned(), arguments, child: None }
    }

    /// Starts it if it isn't running. `arguments` are for this run alone.
    pub(crate) fn start(&mut self, arguments: &[OsString]) -> io::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let file = format!("node-{}.log", self.id);
        let log = File::options().create(true).append(true).open(self.directory.join(file))?;
        // The pipe stays open for as long as this process lives: the node ends when it is closed.
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

    /// `SIGKILL`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.signal_kill();
        self.reap();
    }

    /// `SIGKILL` alone, so that several nodes can be killed at one moment; then `reap`.
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

    /// `SIGSTOP`.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// `SIGCONT`.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match &self.child {
            Some(child) => Ok(kill_process(Pid::from_child(child), signal)?),
            None => Ok(()),
        }
    }

    /// How it ended, if it did so by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks each node for its state until some of them are in it, and says which. For as long as it takes,
/// at most `within`.
pub(crate) async fn wait_for(
    addresses: &[String],
    count: usize,
    within: Duration,
    is_it: impl Fn(&str) -> bool,
) -> io::Result<Vec<String>> {
    let deadline = Instant::now() + within;
    loop {
        let mut found = Vec::new();
        for address in addresses {
            let asked = ask_node(address, &Ask::Status, Duration::from_millis(500)).await;
            match asked {
                Ok(Reply::Status(status)) if is_it(&status) => found.push(status),
                _ => {}
            }
        }
        if found.len() >= count {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the nodes didn't get that far"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The value of one field of a status line.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let mut fields = status.split(' ').filter_map(|field| field.split_once('='));
    fields.find(|(known, _)| *known == name).map_or("", |(_, value)| value)
}

/// Addresses on the loopback that nobody has. Below those that connections get by themselves: a
/// node that is down for a while finds its own still free.
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
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no free ports"));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

pub(crate) fn free_nodes(count: usize) -> io::Result<Vec<Addresses>> {
    let addresses = free_addresses(2 * count)?;
    let node = |pair: &[String]| Addresses { peers: pair[0].clone(), clients: pair[1].clone() };
    Ok(addresses.chunks(2).map(node).collect())
}
