//! Tests of the guard: unchanged work passes, and additional work fails.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Output},
};

/// One work of each kind: in place, in two threads, with woken tasks, reading.
const WORKS: [&str; 4] = ["append_64_memory", "enqueue_64", "commit_64_1_waiter", "replay_256"];

type Variable<'a> = (&'a str, &'a OsStr);

/// Runs the guard. Returns its exit code and its output.
fn guard(command: &str, file: &Path, works: &[&str], variable: Option<Variable>) -> (i32, String) {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_highwater-instructions"));
    guard.args([command, "--recorded"]).arg(file).args(works).envs(variable);
    let Output { status, stdout, stderr } = guard.output().unwrap();
    let output = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8_lossy(&output).into_owned())
}

fn has_valgrind() -> bool {
    let is_there = Command::new("valgrind").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("skipped: valgrind isn't installed");
    }
    is_there
}

/// Returns the recorded and the current count from a line of `check`.
fn counts(line: &str) -> (f64, f64) {
    let mut words = line.split_whitespace().skip(1).map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn check_unchanged_passes_and_extra_work_fails() {
    if !has_valgrind() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recorded.toml");
    let (code, output) = guard("record", &file, &WORKS, None);
    assert_eq!(code, 0, "{output}");

    let (code, output) = guard("check", &file, &WORKS, None);
    assert_eq!(code, 0, "{output}");
    assert_eq!(output.matches("as recorded").count(), WORKS.len(), "{output}");

    let more = Some(("HIGHWATER_INSTRUCTIONS_EXTRA", OsStr::new("200")));
    let (code, output) = guard("check", &file, &WORKS, more);
    assert_eq!(code, 1, "{output}");
    for name in WORKS {
        let line = output.lines().find(|line| line.starts_with(name)).unwrap();
        let (recorded, now) = counts(line);
        assert!(line.ends_with("MORE"), "{output}");
        // At least the added instructions, so the compiler has not removed the extra loop.
        assert!((200.0..4_000.0).contains(&(now - recorded)), "{output}");
    }
}

/// Otherwise a work without a record would never be checked.
#[test]
fn check_work_without_record_fails() {
    if !has_valgrind() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recorded.toml");
    assert_eq!(guard("record", &file, &["replay_256"], None).0, 0);
    let (code, output) = guard("check", &file, &["enqueue_64"], None);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("not recorded"), "{output}");
}

/// Counts from another processor cannot be compared, so `check` neither passes nor fails.
#[test]
fn check_record_of_other_architecture_returns_2() {
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
    let (code, output) = guard("check", &file, &[], None);
    assert_eq!(code, 2, "{output}");
    assert!(output.contains("recorded on pdp11"), "{output}");
}

#[test]
fn check_without_valgrind_returns_2() {
    let nowhere = tempfile::tempdir().unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded.toml");
    let (code, output) = guard("check", &ours, &[], Some(("PATH", nowhere.path().as_os_str())));
    assert_eq!(code, 2, "{output}");
    assert!(output.contains("valgrind isn't installed"), "{output}");
}
