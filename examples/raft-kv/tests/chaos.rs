//! The chaos test, for some seeds and a bounded time; and that it finds what is wrong.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

/// One cluster at a time: three nodes and a dozen clients are enough for a small machine.
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

/// `RAFT_KV_SECONDS` makes it longer, and `RAFT_KV_SEED` another one.
fn variable(name: &str, default: u64) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_string())
}

#[test]
fn the_demonstration_comes_to_its_end() {
    let output = run(&["demo"]);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("SIGKILL of all nodes at once"));
}

#[test]
fn nothing_is_lost_when_processes_and_links_fail() {
    let (seconds, seed) = (variable("RAFT_KV_SECONDS", 20), variable("RAFT_KV_SEED", 1));
    let output = run(&["chaos", "--seconds", &seconds, "--seed", &seed]);
    assert_eq!(output.status.code(), Some(0));
    assert_was_busy(&text(&output.stdout));
}

#[test]
fn nothing_is_lost_when_the_power_fails() {
    let (seconds, seed) = (variable("RAFT_KV_SECONDS", 20), variable("RAFT_KV_SEED", 2));
    let output = run(&["chaos", "--seconds", &seconds, "--seed", &seed, "--power-cuts"]);
    assert_eq!(output.status.code(), Some(0));
    assert_was_busy(&text(&output.stdout));
}

/// A test that did nothing finds nothing.
fn assert_was_busy(stdout: &str) {
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let at = words.windows(2).position(|pair| pair == ["acknowledged", "writes,"]).unwrap();
    let writes: u64 = words[at - 1].parse().unwrap();
    assert!(writes >= 200, "{writes} writes were acknowledged");
    assert!(stdout.contains("KillOne") || stdout.contains("KillAll"), "nothing was killed");
}

/// The same test, on a log that says that entries are durable before they are.
#[test]
fn a_log_that_acknowledges_before_it_syncs_is_caught() {
    let parent = tempfile::tempdir().unwrap();
    for seed in 1..=4 {
        let directory = parent.path().join(format!("seed-{seed}"));
        let seed = seed.to_string();
        let options = ["--seconds", "8", "--seed", &seed, "--power-cuts"];
        let doctored = ["--sabotage", "ack-early", "--nemesis", "kill-all"];
        let place = ["--directory", directory.to_str().unwrap()];
        let output = run(&[&["chaos"], &options[..], &doctored, &place].concat());
        if output.status.code() == Some(1) {
            assert!(text(&output.stdout).contains("VIOLATION"));
            assert_history_is_kept(&directory);
            return;
        }
    }
    panic!("none of four runs found it");
}

/// The same test, on nodes that answer reads without asking whether they know all that is committed.
#[test]
fn a_stale_read_is_caught() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let options = ["--seconds", "6", "--sabotage", "stale-reads", "--nemesis", "partition,delay"];
    let place = ["--directory", directory.to_str().unwrap()];
    let output = run(&[&["chaos"], &options[..], &place].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("is not linearizable"));
}

/// And on nodes that apply what a client sends again once more.
#[test]
fn a_command_that_is_applied_twice_is_caught() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let options = ["--seconds", "6", "--sabotage", "apply-twice", "--nemesis", "transfer,delay"];
    let place = ["--directory", directory.to_str().unwrap()];
    let output = run(&[&["chaos"], &options[..], &place].concat());
    assert_eq!(output.status.code(), Some(1));
}

/// And on leaders that start again and lead on, knowing less than they had answered. It takes a read
/// that comes before the first write after that, of a key that was written last before the kill.
#[test]
fn a_leader_that_is_restored_is_caught() {
    let parent = tempfile::tempdir().unwrap();
    let found = (1..=8).any(|seed| {
        let directory = parent.path().join(format!("seed-{seed}"));
        let seed = seed.to_string();
        let options = ["--seconds", "8", "--seed", &seed, "--keys", "1", "--clients", "16"];
        let doctored = ["--sabotage", "restore-leader", "--nemesis", "kill-all"];
        let place = ["--directory", directory.to_str().unwrap()];
        run(&[&["chaos"], &options[..], &doctored, &place].concat()).status.code() == Some(1)
    });
    assert!(found, "none of eight runs found it");
}

fn assert_history_is_kept(directory: &Path) {
    for file in ["history.txt", "summary.txt", "node-1.log", "node-2.log", "node-3.log"] {
        assert!(directory.join(file).exists(), "{file}");
    }
    let history = std::fs::read_to_string(directory.join("history.txt")).unwrap();
    assert!(history.lines().count() > 100);
}

/// However the test process ends, the nodes do: here it is killed.
#[test]
#[cfg(target_os = "linux")]
fn no_node_outlives_the_test() {
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

/// How many processes have the directory among their arguments, but for the one that started them.
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
    panic!("it takes more than a minute");
}
