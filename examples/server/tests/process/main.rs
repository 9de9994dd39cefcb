//! The server as a process: nothing acknowledged is lost, streams resume, and it ends cleanly.

#![allow(clippy::unwrap_used, reason = "a mistake in a test must stop it")]

mod consumers;
mod server;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::TcpStream,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::server::{PATIENCE, Server, json};

/// Reads events of a live stream until `count` have come. Returns their ids and texts.
fn live(stream: &mut BufReader<TcpStream>, count: usize) -> Vec<(u64, String)> {
    let (mut events, mut id, mut line) = (Vec::new(), 0, String::new());
    while events.len() < count {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream has ended");
        if let Some(text) = line.strip_prefix("id:") {
            id = text.trim().parse().unwrap();
        } else if let Some(text) = line.strip_prefix("data:") {
            events.push((id, json(text)["event"].as_str().unwrap().to_owned()));
        }
    }
    events
}

#[test]
fn concurrent_events_are_read_back_and_followed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("log"));
    let mut stream = server.send("GET /events/live?from=0 HTTP/1.1", b"").unwrap();
    let posted = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for task in 0..8 {
            let (server, posted) = (&server, &posted);
            scope.spawn(move || {
                for i in 0..25 {
                    let event = format!("event {task}/{i}\nin two lines");
                    let lsn = server.post(&event).unwrap();
                    posted.lock().unwrap().insert(lsn, event);
                }
            });
        }
    });
    let posted = posted.into_inner().unwrap();
    assert_eq!(posted.len(), 200);
    assert_eq!(server.all(), posted);
    let followed = live(&mut stream, 200);
    let texts: Vec<_> = followed.iter().map(|(_, text)| text).collect();
    assert_eq!(texts, posted.values().collect::<Vec<_>>());
    // Resumes behind the event with the id.
    let head = format!("GET /events/live?from=0 HTTP/1.1\r\nLast-Event-ID: {}", followed[149].0);
    assert_eq!(live(&mut server.send(&head, b"").unwrap(), 50), followed[150..]);

    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "highwater_records_total{log=\"events\"} 200",
        "highwater_health{log=\"events\"} 0",
        "highwater_commit_seconds_count{log=\"events\"} 200",
        "# TYPE highwater_flush_seconds histogram",
        "highwater_group_records_bucket{log=\"events\",le=\"+Inf\"}",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let (status, health) = server.get("/health");
    assert_eq!((status, json(&health)["is"].as_str()), (200, Some("good")));

    // The live stream is open, and must not keep the server.
    let (is_clean, text) = server.terminate();
    assert!(is_clean && text.contains("closed"), "{text}");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let wal = highwater::Wal::open(directory.path().join("log")).await.unwrap();
        assert!(wal.recovery().was_closed, "{}", wal.recovery());
        wal.close().await.unwrap();
    });
}

#[test]
fn killed_server_keeps_acknowledged_events() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut acknowledged = BTreeMap::new();
    for round in 0..3 {
        let server = Server::start(&path);
        let found = server.all();
        for (lsn, event) in &acknowledged {
            assert_eq!(found.get(lsn), Some(event), "an acknowledged event is lost");
        }
        let (posted, is_killed) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        thread::scope(|scope| {
            for task in 0..4 {
                let (server, posted, is_killed) = (&server, &posted, &is_killed);
                scope.spawn(move || {
                    for i in 0.. {
                        let event = format!("{round}/{task}/{i}");
                        match server.post(&event) {
                            Some(lsn) => posted.lock().unwrap().push((lsn, event)),
                            None if is_killed.load(Ordering::SeqCst) => break,
                            None => panic!("the server has ended"),
                        }
                    }
                });
            }
            let began = Instant::now();
            while posted.lock().unwrap().len() < 50 {
                assert!(began.elapsed() < PATIENCE, "no events");
                thread::sleep(Duration::from_millis(1));
            }
            is_killed.store(true, Ordering::SeqCst);
            server.kill();
        });
        acknowledged.extend(posted.into_inner().unwrap());
    }
    assert!(acknowledged.len() >= 150);
}

#[test]
fn bad_requests_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("log"));
    server.post("event").unwrap();
    let status = |head: &str, body: &[u8]| server.try_request(head, body).unwrap().0;
    assert_eq!(status("POST /events HTTP/1.1", &[0xff, 0xfe]), 400, "no UTF-8");
    assert_eq!(status("GET /events?from=8000000 HTTP/1.1", b""), 416);
    assert_eq!(status("GET /events?from=x HTTP/1.1", b""), 400);
    assert_eq!(status("GET /events/live HTTP/1.1\r\nLast-Event-ID: x", b""), 400);
    assert_eq!(status("GET /nowhere HTTP/1.1", b""), 404);
}
