//! Consumers: they continue where they have acknowledged, and hold the retention back.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::server::{PATIENCE, Server, json};

/// The smallest segments. About 35 events of [`fill`] are in one.
const SEGMENT: [&str; 2] = ["--segment-bytes", "8192"];

impl Server {
    fn put(&self, name: &str) -> u16 {
        let head = format!("PUT /consumers/{name} HTTP/1.1");
        self.try_request(&head, b"").unwrap().0
    }

    fn delete(&self, name: &str) -> u16 {
        let head = format!("DELETE /consumers/{name} HTTP/1.1");
        self.try_request(&head, b"").unwrap().0
    }

    /// Returns the status and the body; `None` if the server ends meanwhile.
    fn acknowledge(&self, name: &str, next: u64) -> Option<(u16, String)> {
        let head = format!("POST /consumers/{name}/position HTTP/1.1");
        self.try_request(&head, format!("{{\"next\":{next}}}").as_bytes())
    }

    /// Returns a page of a consumer, and its next position; `None` if the server ends meanwhile.
    fn page(&self, name: &str, limit: usize) -> Option<(Vec<(u64, String)>, u64)> {
        let head = format!("GET /consumers/{name}/events?limit={limit} HTTP/1.1");
        let (status, body) = self.try_request(&head, b"")?;
        assert_eq!(status, 200, "{body}");
        let page = json(&body);
        let events = page["events"].as_array().unwrap().iter();
        let event = |event: &serde_json::Value| {
            (event["lsn"].as_u64().unwrap(), event["event"].as_str().unwrap().to_owned())
        };
        Some((events.map(event).collect(), page["next"].as_u64().unwrap()))
    }

    /// Reads and acknowledges up to `count` events. Returns the position then.
    fn consume(&self, name: &str, count: usize) -> u64 {
        let (_, next) = self.page(name, count).unwrap();
        assert_eq!(self.acknowledge(name, next).unwrap().0, 204);
        next
    }

    /// Returns what `GET /consumers` lists about a consumer.
    fn listed(&self, name: &str) -> Option<serde_json::Value> {
        let (status, body) = self.get("/consumers");
        assert_eq!(status, 200, "{body}");
        json(&body).as_array().unwrap().iter().find(|listed| listed["name"] == name).cloned()
    }

    fn position(&self, name: &str) -> u64 {
        self.listed(name).unwrap()["position"].as_u64().unwrap()
    }

    /// Returns the position at which the log begins.
    fn first(&self) -> u64 {
        match self.get("/events?from=0&limit=1") {
            (200, _) => 0,
            (410, body) => json(&body)["first"].as_u64().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Posts events of 200 bytes.
    fn fill(&self, count: usize) {
        for _ in 0..count {
            self.post(&"x".repeat(200)).unwrap();
        }
    }
}

/// A consumer, and its progress on several servers.
struct Consumer {
    name: &'static str,
    /// The events of a page.
    limit: usize,
    seen: BTreeMap<u64, String>,
    acknowledged: u64,
    /// The last position that the server was sent. It may be durable without a response.
    requested: u64,
}

impl Consumer {
    fn new(name: &'static str, limit: usize) -> Self {
        Consumer { name, limit, seen: BTreeMap::new(), acknowledged: 0, requested: 0 }
    }

    /// Checks the position after a restart. The consumer continues there.
    fn check(&self, server: &Server) {
        let position = server.position(self.name);
        let possible = self.acknowledged..=self.requested;
        assert!(possible.contains(&position), "{}: {position}, not {possible:?}", self.name);
    }

    /// Reads and acknowledges a page. Returns the number of events; `None` if the server ends
    /// meanwhile.
    fn step(&mut self, server: &Server) -> Option<usize> {
        let (events, next) = server.page(self.name, self.limit)?;
        if events.is_empty() {
            return Some(0);
        }
        let count = events.len();
        self.seen.extend(events);
        self.requested = next;
        let (status, body) = server.acknowledge(self.name, next)?;
        assert_eq!(status, 204, "{body}");
        self.acknowledged = next;
        Some(count)
    }

    fn drain(&mut self, server: &Server) {
        while self.step(server).unwrap() > 0 {}
    }
}

#[test]
fn killed_server_keeps_acknowledged_positions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut consumers = [Consumer::new("fast", 20), Consumer::new("slow", 3)];
    for round in 0..3 {
        let server = Server::start(&path);
        for consumer in &consumers {
            match round {
                0 => assert_eq!(server.put(consumer.name), 201),
                _ => consumer.check(&server),
            }
        }
        let (is_killed, page_count) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let (server, is_killed, page_count) = (&server, &is_killed, &page_count);
            for task in 0..2 {
                scope.spawn(move || {
                    for i in 0.. {
                        if server.post(&format!("{round}/{task}/{i}")).is_none() {
                            assert!(is_killed.load(Ordering::SeqCst), "the server has ended");
                            break;
                        }
                    }
                });
            }
            for consumer in &mut consumers {
                scope.spawn(move || {
                    while consumer.step(server).is_some() {
                        page_count.fetch_add(1, Ordering::SeqCst);
                    }
                    assert!(is_killed.load(Ordering::SeqCst), "the server has ended");
                });
            }
            let began = Instant::now();
            while page_count.load(Ordering::SeqCst) < 40 {
                assert!(began.elapsed() < PATIENCE, "no pages");
                thread::sleep(Duration::from_millis(1));
            }
            is_killed.store(true, Ordering::SeqCst);
            server.kill();
        });
    }
    let server = Server::start(&path);
    for consumer in &mut consumers {
        consumer.check(&server);
        consumer.drain(&server);
        assert_eq!(consumer.seen, server.all(), "{}: a gap", consumer.name);
    }
}

/// Nothing else is written when the acknowledgement is, so no other flush makes it durable.
#[test]
fn idle_server_keeps_an_acknowledgement() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let server = Server::start(&path);
    server.fill(20);
    assert_eq!(server.put("consumer"), 201);
    drop(server);
    for _ in 0..10 {
        let server = Server::start(&path);
        let next = server.consume("consumer", 2);
        drop(server);
        assert_eq!(Server::start(&path).position("consumer"), next);
    }
    let server = Server::start(&path);
    assert_eq!(server.page("consumer", 10).unwrap().0, []);
}

#[test]
fn slowest_consumer_holds_retention_back() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [&SEGMENT[..], &["--keep-bytes", "16384"]].concat();
    let server = Server::start_with(&directory.path().join("log"), &arguments);
    assert_eq!((server.put("fast"), server.put("slow")), (201, 201));
    server.fill(300);
    let end = server.consume("fast", 300);
    server.fill(40);
    assert_eq!(server.first(), 0, "the slow consumer has read nothing");
    let half = server.consume("slow", 150);
    server.fill(40);
    let first = server.first();
    assert!(first > 0 && first <= half, "{first} is not up to {half}");
    assert!(half - first <= 8192, "only the segment of the slow consumer stays");
    let (events, _) = server.page("slow", 300).unwrap();
    assert_eq!(events.len(), 230, "the slow consumer has lost an event");
    let held = server.listed("slow").unwrap()["held_bytes"].as_u64().unwrap();
    assert!(held > 200 * 230, "{held}");

    assert_eq!(server.delete("slow"), 204);
    assert!(server.listed("slow").is_none());
    server.fill(40);
    let first = server.first();
    assert!(first > half && first <= end, "{first} is not up to the fast consumer at {end}");
    let (events, _) = server.page("fast", 300).unwrap();
    assert_eq!(events.len(), 120, "the fast consumer has lost an event");
}

#[test]
fn consumer_beyond_its_limit_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let server = Server::start_with(&path, &SEGMENT);
    assert_eq!(server.put("old"), 201);
    drop(server);
    let limits = ["--keep-bytes", "8192", "--consumer-bytes-max", "16384"];
    let server = Server::start_with(&path, &[&SEGMENT[..], &limits].concat());
    assert_eq!(server.put("new"), 201);
    server.fill(20);
    assert_eq!((server.first(), server.page("new", 100).unwrap().0.len()), (0, 20));
    server.fill(300);
    // A slot from before has the limit, too.
    for name in ["old", "new"] {
        let (status, body) = server.get(&format!("/consumers/{name}/events"));
        assert_eq!(status, 410, "{name}");
        assert_eq!(json(&body)["first"].as_u64(), Some(server.first()));
        let (status, body) = server.acknowledge(name, server.first()).unwrap();
        assert_eq!(status, 410, "{name}");
        assert_eq!(json(&body)["first"].as_u64(), Some(server.first()));
        assert_eq!(server.listed(name).unwrap()["is_lost"], true);
    }
    assert_eq!((server.delete("old"), server.put("old")), (204, 201));
    let (events, _) = server.page("old", 1).unwrap();
    assert!(events[0].0 >= server.first());
    assert_eq!(server.listed("old").unwrap()["is_lost"], false);
}

/// Returns the LSN of the second event, and the position behind it.
fn two_positions(server: &Server) -> (u64, u64) {
    let (_, body) = server.get("/events");
    let page = json(&body);
    (page["events"][1]["lsn"].as_u64().unwrap(), page["next"].as_u64().unwrap())
}

#[test]
fn bad_requests_of_consumers_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("log"));
    server.fill(2);
    let status = |head: &str, body: &[u8]| server.try_request(head, body).unwrap().0;
    assert_eq!(status("GET /consumers/unknown/events HTTP/1.1", b""), 404);
    assert_eq!(server.acknowledge("unknown", 0).unwrap().0, 404);
    assert_eq!(server.delete("unknown"), 404);
    assert_eq!(server.put(&"x".repeat(65)), 400);
    assert_eq!(server.put("x?from=8"), 400, "no event begins there");
    assert_eq!(server.put("x?from=80000000"), 416);
    assert_eq!(server.put("x?from=x"), 400);
    assert!(server.listed("x").is_none());

    let (event, next) = two_positions(&server);
    assert_eq!(server.put(&format!("late?from={next}")), 201);
    assert_eq!(server.position("late"), next);
    assert_eq!(server.put("late?from=0"), 200);
    assert_eq!(server.position("late"), next, "a consumer that exists does not move");
    assert_eq!(server.acknowledge("late", event).unwrap().0, 204);
    assert_eq!(server.position("late"), next, "a consumer does not move back");
    assert_eq!(server.put("early"), 201);
    assert_eq!(server.acknowledge("early", event + 8).unwrap().0, 400, "within an event");
    assert_eq!(server.acknowledge("early", 3).unwrap().0, 400);
    assert_eq!(server.acknowledge("early", 1 << 40).unwrap().0, 409);
    assert_eq!(status("POST /consumers/early/position HTTP/1.1", b"{}"), 400);
    assert_eq!(server.position("early"), 0);
}

#[test]
fn concurrent_requests_make_one_consumer() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("log"));
    for _ in 0..5 {
        let mut statuses: Vec<u16> = thread::scope(|scope| {
            let put = || scope.spawn(|| server.put("one"));
            let putting: Vec<_> = (0..8).map(|_| put()).collect();
            putting.into_iter().map(|putting| putting.join().unwrap()).collect()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
        // Removals beside acknowledgements, of which each sees the consumer or does not.
        thread::scope(|scope| {
            let acknowledging = scope.spawn(|| server.acknowledge("one", 0).unwrap().0);
            let deleting =
                [scope.spawn(|| server.delete("one")), scope.spawn(|| server.delete("one"))];
            let mut statuses = deleting.map(|deleting| deleting.join().unwrap());
            statuses.sort_unstable();
            assert_eq!(statuses, [204, 404]);
            assert!([204, 404].contains(&acknowledging.join().unwrap()));
        });
    }
}
