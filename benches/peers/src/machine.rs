//! Describes the machine and the time of a run.

use std::{fmt::Write, fs, path::Path, process::Command};

pub fn describe(dir: &Path) -> String {
    let mut text = String::from("| | |\n|---|---|\n");
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "| {name} | {} |", value.trim());
    };
    row("date", output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    let model = field("/proc/cpuinfo", "model name");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    row("processor", format!("{model}, {cores} available"));
    row("memory", field("/proc/meminfo", "MemTotal"));
    row("kernel", output_of("uname", &["-sr"]));
    row("file system", file_system(dir));
    row("compiler", output_of("rustc", &["--version"]));
    let arguments = without_paths(std::env::args().skip(1));
    let command = "cargo run --release --manifest-path benches/peers/Cargo.toml --";
    row("command", format!("`{command} {}`", arguments.join(" ")));
    text
}

/// Hides the paths of `--dir` and `--out`, because pages are published.
fn without_paths(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_path = false;
    let hide = |argument: String| {
        let is_hidden = std::mem::replace(&mut is_path, argument == "--dir" || argument == "--out");
        match argument.split_once('=') {
            _ if is_hidden => "…".to_owned(),
            Some((name @ ("--dir" | "--out"), _)) => format!("{name}=…"),
            _ => argument,
        }
    };
    arguments.map(hide).collect()
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).into())
}

fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, value)| value.into())
}

/// Returns the type and the mount options of the directory's file system.
fn file_system(dir: &Path) -> String {
    let dir = dir.to_string_lossy();
    output_of("findmnt", &["-n", "-o", "FSTYPE,OPTIONS", "--target", &dir])
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(", ")
}
