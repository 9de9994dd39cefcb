//! The server as a process, and requests to it.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The limit of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    pub(crate) fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_server"))
            .args(["--listen", "127.0.0.1:0", "--directory"])
            .arg(directory)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Server { child, output, address }
    }

    /// Sends a request, and returns the open connection; `None` if the server ends meanwhile.
    pub(crate) fn send(&self, head: &str, body: &[u8]) -> Option<BufReader<TcpStream>> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{head}\r\nHost: server\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
        Some(BufReader::new(stream))
    }

    /// Returns the status and the body; `None` if the server ends meanwhile.
    pub(crate) fn try_request(&self, head: &str, body: &[u8]) -> Option<(u16, String)> {
        let mut response = String::new();
        self.send(head, body)?.read_to_string(&mut response).ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.try_request(&format!("GET {path} HTTP/1.1"), b"").unwrap()
    }

    /// Sends SIGKILL. Responses that the server has not sent are lost.
    pub(crate) fn kill(&self) {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
    }

    /// Returns the LSN of the event if it was acknowledged.
    pub(crate) fn post(&self, event: &str) -> Option<u64> {
        let (status, body) = self.try_request("POST /events HTTP/1.1", event.as_bytes())?;
        assert_eq!(status, 201, "{body}");
        json(&body)["lsn"].as_u64()
    }

    /// Reads all events in pages of 30.
    pub(crate) fn all(&self) -> BTreeMap<u64, String> {
        let mut found = BTreeMap::new();
        let mut next = String::new();
        loop {
            let (status, body) = self.get(&format!("/events?limit=30{next}"));
            assert_eq!(status, 200, "{body}");
            let page = json(&body);
            let events = page["events"].as_array().unwrap();
            assert!(events.len() <= 30);
            for event in events {
                let lsn = event["lsn"].as_u64().unwrap();
                let text = event["event"].as_str().unwrap().to_owned();
                assert_eq!(found.insert(lsn, text), None, "an event comes twice");
            }
            if events.is_empty() {
                return found;
            }
            next = format!("&from={}", page["next"]);
        }
    }

    /// Sends SIGTERM. Returns whether the server has ended cleanly, and its output.
    pub(crate) fn terminate(mut self) -> (bool, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(10));
        }
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap().success(), text)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL. It fails only if the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
