//! Tests the files that commands create. No other file is changed, and no temporary file is left.

#![cfg(unix)]

use std::{
    os::unix::fs::symlink,
    process::Child,
    time::{Duration, Instant},
};

use super::*;

/// Waits until files with these names exist.
fn wait_for(scene: &Scene, child: &mut Child, awaited: &[&str]) {
    let begun = Instant::now();
    let is_there = |part: &&str| scene.names().iter().any(|name| name.contains(part));
    while !awaited.iter().all(is_there) {
        assert!(child.try_wait().unwrap().is_none(), "the command ended before {awaited:?}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", scene.names());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn interrupted(child: Child, signal: &str) -> i32 {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    Scene::outcome(child).0
}

#[test]
fn interrupted_command_leaves_no_file() {
    let scene = Scene::with(&image(true));
    let stream = scene.bytes(&["export", "log"]);
    let before = scene.names();
    for (signal, status) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let import = ["import", "-", "new", "--map", "map.tsv"];
        let mut child = scene.command(&import).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&stream[..stream.len() / 2]).unwrap();
        wait_for(&scene, &mut child, &["new.importing", "map.tsv"]);
        assert_eq!(interrupted(child, signal), status);
        assert_eq!(scene.names(), before, "import, {signal}");
        let bench = ["bench-fsync", ".", "--seconds", "600"];
        let mut child = scene.command(&bench).spawn().unwrap();
        wait_for(&scene, &mut child, &["highwater-bench-fsync"]);
        assert_eq!(interrupted(child, signal), status);
        assert_eq!(scene.names(), before, "bench-fsync, {signal}");
    }
}

#[test]
fn link_under_temporary_name_is_not_followed() {
    let scene = Scene::with(&image(true));
    let stream = scene.bytes(&["export", "log"]);
    fs::write(scene.path("log.hwx"), &stream).unwrap();
    fs::write(scene.path("precious"), "keep me").unwrap();
    let names =
        ["out.hwx.partial", "map.tsv.partial", "highwater-bench-fsync-1.tmp", "lost.hwx", "lost"];
    for name in names {
        let to = if name.starts_with("lost") { "nowhere" } else { "precious" };
        symlink(scene.path(to), scene.path(name)).unwrap();
    }
    assert_eq!(scene.run(&["export", "log", "-o", "out.hwx"]).status, 0);
    assert_eq!(scene.run(&["import", "log.hwx", "new", "--map", "map.tsv"]).status, 0);
    assert_eq!(scene.run(&["bench-fsync", ".", "--seconds", "1"]).status, 0);
    assert_eq!(fs::read_to_string(scene.path("precious")).unwrap(), "keep me");
    assert_eq!(fs::read(scene.path("out.hwx")).unwrap(), stream);
    for name in names {
        assert!(scene.path(name).is_symlink(), "{name} must stay");
    }
    // A dangling link must not create a file at its target.
    let refused = scene.run(&["export", "log", "-o", "lost.hwx"]);
    assert!(refused.status == 4 && refused.error.contains("exists already"), "{}", refused.error);
    let refused = scene.run(&["import", "log.hwx", "lost"]);
    assert_eq!(refused.status, 4, "{}", refused.error);
    assert!(!scene.path("nowhere").exists() && !scene.path("lost.importing").exists());
}

/// `--map` and `export -o` create their files in the same way.
#[test]
fn second_writer_of_one_file_is_refused() {
    let scene = Scene::with(&image(true));
    let stream = scene.bytes(&["export", "log"]);
    // Both wait for input after they have created their maps, so that they always compete.
    let import = ["import", "-", "one", "--map", "map.tsv"];
    let mut child = scene.command(&import).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let (front, back) = stream.split_at(stream.len() / 2);
    input.write_all(front).unwrap();
    wait_for(&scene, &mut child, &["map.tsv"]);
    let other = scene.feed(&["import", "-", "two", "--map", "map.tsv"], &stream);
    assert_eq!(other.status, 0, "{}", other.error);
    let map = fs::read(scene.path("map.tsv")).unwrap();
    input.write_all(back).unwrap();
    drop(input);
    let (status, output) = Scene::outcome(child);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(status == 4 && error.contains("map.tsv: exists already"), "{status}: {error}");
    assert_eq!(fs::read(scene.path("map.tsv")).unwrap(), map);
    assert_eq!(scene.names(), ["log", "map.tsv", "two"]);
}

#[test]
fn import_into_a_link_fills_its_target() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    fs::create_dir_all(scene.path("far/data")).unwrap();
    symlink("far/data", scene.path("data")).unwrap();
    let outcome = scene.run(&["import", "log.hwx", "data"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert!(scene.path("data").is_symlink() && !scene.path("far/data").is_symlink());
    assert_eq!(scene.records("far/data"), scene.records("log"));
    assert_eq!(scene.names(), ["data", "far", "log", "log.hwx"]);
}

/// A bind mount has the device of its parent, so only the final rename would fail.
#[cfg(target_os = "linux")]
#[test]
fn import_into_a_mount_point_is_refused_at_once() {
    let scene = Scene::with(&image(true));
    fs::write(scene.path("log.hwx"), scene.bytes(&["export", "log"])).unwrap();
    fs::create_dir(scene.path("mounted")).unwrap();
    fs::create_dir(scene.path("other")).unwrap();
    let script = "mount --bind other mounted || { echo skipped; exit 0; }
        \"$0\" import log.hwx mounted; echo status $?; ls -A . mounted";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_highwater")).current_dir(scene.directory.path());
    let Ok(output) = command.output() else { return };
    let out = String::from_utf8(output.stdout).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if out.is_empty() || out.contains("skipped") {
        eprintln!("nothing may be mounted here: skipped: {error}");
        return;
    }
    assert!(out.starts_with("status 4\n"), "{out}{error}");
    assert!(error.contains("name a new directory inside it"), "{error}");
    assert!(!out.contains("importing"), "{out}");
}

#[test]
fn hostile_names_and_payloads_reach_no_terminal() {
    let parent = Scene::new();
    let name = "log\u{1b}]0;x\u{7}\u{202e}\u{9b}31m\u{7f}";
    let payload = "\u{202e}\u{9b}31m\u{7f}\u{1b}[2J\u{2066}";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = Wal::options().segment_bytes(1 << 20);
        let wal = options.open(parent.path(name)).await.unwrap();
        wal.append_and_sync(payload).await.unwrap();
        wal.close().await.unwrap();
    });
    let foreign = format!("{name}/x\u{1b}[31m\u{202e}");
    fs::write(parent.path(&foreign), "").unwrap();
    fs::create_dir(parent.path(&format!("{name}2"))).unwrap();
    fs::write(parent.path(&format!("{name}2/\u{9b}\u{202e}")), "").unwrap();
    let (log, other) = (name, &format!("{name}2"));
    let commands: [&[&str]; 14] = [
        &["inspect", log],
        &["inspect", log, "--json"],
        &["stat", log],
        &["stat", log, "--json"],
        &["verify", log],
        &["verify", log, "--json"],
        &["dump", log],
        &["dump", log, "--as", "hex"],
        &["dump", log, "--json"],
        &["tail", log],
        &["tail", log, "--json"],
        &["repair", other],
        &["verify", other],
        &["export", log, "-o", other, "--json"],
    ];
    let is_harmful =
        |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{2069}').contains(&c));
    for arguments in commands {
        let outcome = parent.run(arguments);
        let all = format!("{}{}", outcome.out, outcome.error);
        assert!(!all.is_empty() && !all.contains(is_harmful), "{arguments:?}: {all:?}");
    }
    let line = parent.run(&["dump", log, "--json"]).out;
    let first: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert_eq!(first["text"], payload);
}

#[test]
fn exported_file_and_imported_log_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::with(&image(true));
    for arguments in [&["export", "log", "-o", "out.hwx"][..], &["import", "out.hwx", "new"]] {
        let outcome = scene.run(arguments);
        assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.error);
    }
    let mode = |name: &str| fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("out.hwx"), mode("new")), (0o600, 0o700));
    for entry in fs::read_dir(scene.path("new")).unwrap() {
        let name = format!("new/{}", entry.unwrap().file_name().to_str().unwrap());
        assert_eq!(mode(&name), 0o600, "{name}");
    }
}
