//! The guard itself: it passes what hasn't changed, and fails what has.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Output},
};

/// One of each kind: in place, in two threads, with tasks woken, reading.
const WORKS: [&str; 4] = ["append_64_memory", "enqueue_64", "commit_64_1_waiter", "replay_256"];

type Variable<'a> = (&'a str, &'a OsStr);

/// The exit code and all that was said.
fn guard(command: &str, file: &Path, works: &[&str], variable: Option<Variable>) -> (i32, String) {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_highwater-instructions"));
    guard.args([command, "--recorded"]).arg(file).args(works).envs(variable);
    let Output { status, stdout, stderr } = guard.output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

fn has_valgrind() -> bool {
    let is_there = Command::new("valgrind").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: valgrind isn't installed");
    }
    is_there
}

/// The instructions of a line of `check`, recorded and now.
fn counts(line: &str) -> (f64, f64) {
    let mut words = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn what_is_as_recorded_passes_and_work_that_was_added_does_not() {
    if !has_valgrind() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recorded.toml");
    let (code, said) = guard("record", &file, &WORKS, None);
    assert_eq!(code, 0, "{said}");

    let (code, said) = guard("check", &file, &WORKS, None);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("as recorded").count(), WORKS.len(), "{said}");

    let more = Some(("HIGHWATER_INSTRUCTIONS_EXTRA", OsStr::new("200")));
    let (code, said) = guard("check", &file, &WORKS, more);
    assert_eq!(code, 1, "{said}");
    for name in WORKS {
        let line = said.lines().find(|line| line.starts_with(name)).unwrap();
        let (recorded, now) = counts(line);
        assert!(line.ends_with("MORE"), "{said}");
        // No less than was added, so nothing of it was optimized away.
        assert!((200.0..4_000.0).contains(&(now - recorded)), "{said}");
    }
}

/// A work that nobody has recorded would else never be checked.
#[test]
fn a_work_without_a_record_does_not_pass() {
    if !has_valgrind() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recorded.toml");
    assert_eq!(guard("record", &file, &["replay_256"], None).0, 0);
    let (code, said) = guard("check", &file, &["enqueue_64"], None);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("not recorded"), "{said}");
}

/// Counts of another processor's loops say nothing: that is neither a pass nor a failure.
#[test]
fn a_record_of_another_architecture_is_not_compared_with() {
    if !has_valgrind() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recorded.toml");
    assert_eq!(guard("record", &file, &["replay_256"], None).0, 0);
    let ours = fs::read_to_string(&file).unwrap();
    let theirs = ours.replace(std::env::consts::ARCH, "pdp11");
    assert_ne!(ours, theirs);
    fs::write(&file, theirs).unwrap();
    let (code, said) = guard("check", &file, &[], None);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("recorded on pdp11"), "{said}");
}

#[test]
fn without_valgrind_it_says_so_and_neither_passes_nor_fails() {
    let nowhere = tempfile::tempdir().unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded.toml");
    let (code, said) = guard("check", &ours, &[], Some(("PATH", nowhere.path().as_os_str())));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("valgrind isn't installed"), "{said}");
}
