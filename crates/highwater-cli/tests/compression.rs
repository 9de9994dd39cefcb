//! Runs the command-line tool on a log with compressed records.

#![allow(clippy::unwrap_used, reason = "a mistake in a test must stop it")]

use std::process::Command;

use highwater::{Compression, Wal};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// Returns text that compresses to about a fifth.
fn text(bytes: usize) -> Vec<u8> {
    let lines = (0u32..).flat_map(|line| format!("line {line} of a text\n").into_bytes());
    lines.take(bytes).collect()
}

#[test]
fn tool_shows_stored_and_real_size() {
    let directory = tempfile::tempdir_in(".").unwrap();
    block_on(async {
        let options = Wal::options().compression(Compression::Lz4);
        let wal = options.open(directory.path()).await.unwrap();
        wal.append(&text(1000)).await.unwrap();
        wal.append("short").await.unwrap();
        wal.close().await.unwrap();
    });
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        let ran = command.arg(arguments[0]).arg(directory.path()).args(&arguments[1..]).output();
        let ran = ran.unwrap();
        (ran.status.code().unwrap(), String::from_utf8(ran.stdout).unwrap())
    };
    let (status, dumped) = run(&["dump", "--json"]);
    let mut lines = dumped.lines();
    let (first, second) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!(status, 0);
    assert!(first.contains(r#""payload_bytes":1000,"#) && first.contains(r#"{"codec":"lz4"}"#));
    assert!(first.contains("line 0 of a text") && !second.contains("codec"), "{dumped}");
    let (_, dumped) = run(&["dump"]);
    assert!(dumped.contains("lz4, stored in "), "{dumped}");
    let (_, inspected) = run(&["inspect"]);
    assert!(inspected.contains("compressed 1 record: "), "{inspected}");
    assert_eq!(run(&["verify"]).0, 0);
}
