//! The command-line tool on compressed records, as a process.

use std::process::Command;

use highwater::{Compression, Wal};

use super::{block_on, text};

#[test]
fn the_tool_shows_what_is_stored_and_what_it_is() {
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
