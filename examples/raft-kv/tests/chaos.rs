//! Runs the chaos test with some seeds, and checks that it finds mistakes made on purpose.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

/// Only one cluster runs at a time, because the machine may be small.
static TURN: Mutex<()> = Mutex::new(());

fn run(arguments: &[&str]) -> Output {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_raft-kv")).args(arguments).output().unwrap();
    println!("{}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns a variable of the environment: `RAFT_KV_SECONDS` or `RAFT_KV_SEED`.
fn variable(name: &str, default: u64) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_string())
}

#[test]
fn demo_runs_to_its_end() {
    let output = run(&["demo"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("SIGKILL of all nodes at once"));
}

#[test]
fn chaos_with_all_faults_loses_nothing() {
    let (seconds, seed) = (variable("RAFT_KV_SECONDS", 20), variable("RAFT_KV_SEED", 1));
    let output = run(&["chaos", "--seconds", &seconds, "--seed", &seed]);
    assert_eq!(output.status.code(), Some(0));
    assert_was_busy(&text(&output.stdout));
}

#[test]
fn chaos_with_power_cuts_loses_nothing() {
    let (seconds, seed) = (variable("RAFT_KV_SECONDS", 20), variable("RAFT_KV_SEED", 2));
    let output = run(&["chaos", "--seconds", &seconds, "--seed", &seed, "--power-cuts"]);
    assert_eq!(output.status.code(), Some(0));
    assert_was_busy(&text(&output.stdout));
}

/// A leader with tiny segments has little memory for entries that its disk has not taken. It stops
/// soon by itself, so these runs use large ones.
fn freezing() -> [&'static str; 4] {
    ["chaos", "--nemesis", "freeze", "--large-segments"]
}

/// Freezes disks, and nothing else. Another node leads within a limit, no acknowledged write is
/// lost, and each frozen node continues after the thaw: a node that ended fails the run.
#[test]
fn chaos_with_frozen_disks_loses_nothing() {
    let (seconds, seed) = (variable("RAFT_KV_SECONDS", 15), variable("RAFT_KV_SEED", 3));
    let output = run(&[&freezing()[..], &["--seconds", &seconds, "--seed", &seed]].concat());
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("another leader within"));
}

/// Checks that the test was active enough to find something.
fn assert_was_busy(stdout: &str) {
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let at = words.windows(2).position(|pair| pair == ["acknowledged", "writes,"]).unwrap();
    let writes: u64 = words[at - 1].parse().unwrap();
    assert!(writes >= 200, "{writes} writes were acknowledged");
    assert!(stdout.contains("KillOne") || stdout.contains("KillAll"), "nothing was killed");
}

/// Runs the chaos test with these options for the seeds from 1 to `seeds`, until a run finds a
/// violation, and returns its output.
///
/// A mistake shows only in some schedules, and a slow machine has fewer of them. One run is
/// therefore no proof that the mistake stays unseen.
fn find(seeds: u64, options: &[&str]) -> String {
    let parent = tempfile::tempdir().unwrap();
    for seed in 1..=seeds {
        let directory = parent.path().join(format!("seed-{seed}"));
        let seed = seed.to_string();
        let place = ["--seed", &seed, "--directory", directory.to_str().unwrap()];
        let output = run(&[&["chaos"], options, &place].concat());
        if output.status.code() == Some(1) {
            assert_history_is_kept(&directory);
            return text(&output.stdout);
        }
    }
    panic!("none of {seeds} runs found the mistake");
}

/// Uses a log that acknowledges entries before they are durable.
#[test]
fn chaos_finds_early_acknowledgement() {
    let sabotage = ["--sabotage", "ack-early", "--nemesis", "kill-all"];
    let stdout = find(6, &[&["--seconds", "8", "--power-cuts"], &sabotage[..]].concat());
    assert!(stdout.contains("VIOLATION"));
}

/// Uses nodes that read their local state without checking that it is current.
#[test]
fn chaos_finds_stale_reads() {
    let sabotage = ["--sabotage", "stale-reads", "--nemesis", "partition,delay"];
    let stdout = find(6, &[&["--seconds", "6"], &sabotage[..]].concat());
    assert!(stdout.contains("is not linearizable"));
}

/// Uses nodes that apply a repeated command twice. A client repeats a command if its leader
/// changes before the reply.
#[test]
fn chaos_finds_commands_applied_twice() {
    let sabotage = ["--sabotage", "apply-twice", "--nemesis", "transfer,delay"];
    find(8, &[&["--seconds", "6"], &sabotage[..]].concat());
}

/// Uses leaders that continue as leaders after a restart, although their commit index may be older
/// than their last replies. Only a read before the next write shows it, of the key that was written
/// last.
#[test]
fn chaos_finds_restored_leader() {
    let options = ["--seconds", "8", "--keys", "1", "--clients", "16"];
    let sabotage = ["--sabotage", "restore-leader", "--nemesis", "kill-all"];
    find(12, &[&options[..], &sabotage].concat());
}

/// Uses leaders that ignore the health of their logs. Their heartbeats need no disk.
#[test]
fn chaos_finds_leader_that_keeps_leading() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let place = ["--directory", directory.to_str().unwrap()];
    let sabotage = ["--seconds", "8", "--sabotage", "keep-leading"];
    let output = run(&[&freezing()[..], &sabotage, &place].concat());
    assert_eq!(output.status.code(), Some(2));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("no other node leads although the disk of node"), "{stdout}");
}

fn assert_history_is_kept(directory: &Path) {
    for file in ["history.txt", "summary.txt", "node-1.log", "node-2.log", "node-3.log"] {
        assert!(directory.join(file).exists(), "{file}");
    }
    let history = std::fs::read_to_string(directory.join("history.txt")).unwrap();
    assert!(history.lines().count() > 100);
}

/// The nodes end with the test process, even if it is killed.
#[test]
#[cfg(target_os = "linux")]
fn killed_test_leaves_no_nodes() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let mut chaos = Command::new(env!("CARGO_BIN_EXE_raft-kv"))
        .args(["chaos", "--seconds", "60", "--nemesis", "compact", "--directory"])
        .arg(&directory)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| nodes_in(&directory) == 3);
    chaos.kill().unwrap();
    chaos.wait().unwrap();
    wait_until(|| nodes_in(&directory) == 0);
}

/// Returns the number of node processes with this directory in their arguments.
#[cfg(target_os = "linux")]
fn nodes_in(directory: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let data = directory.join("node-").display().to_string();
    lines.filter(|line| text(line).contains(&data)).count()
}

#[cfg(target_os = "linux")]
fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..600 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("the condition was not met within a minute");
}
