//! The layers: a module imports only from its own rank and from below, and files import each other
//! in no cycle.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod cycles;
mod modules;
mod remaining;
mod sources;

use std::collections::{BTreeMap, BTreeSet};

use sources::{Source, blank_literals, code, is_test_file, is_word, skip_item, sources};

const RANKS: [&[&str]; 12] = [
    &[
        "error",
        "health",
        "retention",
        "lock_owner",
        "lsn",
        "operation",
        "options",
        "watermarks",
        "record",
        "sabotage",
        "steps",
        "sync",
        "turn",
    ],
    &["format"],
    &["storage", "executor"],
    &["simulation"],
    &["segments"],
    &["pipeline"],
    &["replay", "follow"],
    &["recovery"],
    &["inspect"],
    &["stats"],
    &["wal", "fuzzing"],
    &["reader", "typed", "raft", "shipping"],
];
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Returns the first names after each `prefix` (such as `crate::`), also within groups in braces.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|&c| is_word(c)).collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut expects_name = true;
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                _ if expects_name && is_word(character) => {
                    names.insert(word(&group[at..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|rank| rank.contains(&module))
}

fn module(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Returns what breaks the layering, one line each.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    // The tool is another crate: the compiler shows it only the public interface.
    let is_ranked =
        |file: &str| !["lib.rs", "guide.rs"].contains(&file) && !file.starts_with("tool/");
    for (file, text) in sources.iter().filter(|(file, _)| is_ranked(file)) {
        let from = module(file);
        let Some(from_rank) = rank(from) else {
            found.push(format!("{file}: the module `{from}` has no rank"));
            continue;
        };
        // Tests keep the layers too.
        for to in names_after(&blank_literals(text), "crate::") {
            match rank(&to) {
                None => found.push(format!("{file}: `crate::{to}` is no module with a rank")),
                Some(to_rank) if to_rank > from_rank => {
                    found.push(format!("{file}: {from} ({from_rank}) imports {to} ({to_rank})"));
                }
                Some(_) if to != from => drop(edges.entry(from).or_default().insert(to)),
                Some(_) => {}
            }
        }
    }
    // Modules of one rank may import each other, but not in a cycle.
    let mut left = edges;
    loop {
        let ends: Vec<_> = left
            .iter()
            .filter(|(_, to)| to.iter().all(|to| !left.contains_key(to.as_str())))
            .map(|(from, _)| *from)
            .collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|end| drop(left.remove(end)));
    }
    if !left.is_empty() {
        found.push(format!("a cycle of imports among {:?}", left.keys()));
    }
    found
}

/// Returns uses of `fs` and `unsafe` outside of their places.
fn misplaced(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources {
        let code = code(text);
        let uses = |prefix: &str, name: &str| names_after(&code, prefix).contains(name);
        let may = ["storage/file/", "tool/files/"];
        if uses("std::", "fs") && !may.iter().any(|place| file.starts_with(place)) {
            found.push(format!("{file}: std::fs"));
        }
        if uses("tokio::", "fs") {
            found.push(format!("{file}: tokio::fs"));
        }
        let has_unsafe = code.split(|c| !is_word(c)).any(|word| word == "unsafe");
        if has_unsafe && file != "pipeline/state/ring.rs" {
            found.push(format!("{file}: unsafe"));
        }
    }
    found
}

/// Returns files and functions that are too long, without tests.
fn too_long(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources.iter().filter(|(file, _)| !is_test_file(file)) {
        let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
        let lines = text[..tests].lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{file}: {lines} lines"));
        }
        let code = code(text);
        let lines: Vec<_> = code.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let Some(at) = line.find("fn ") else { continue };
            let before = line[..at].trim_end();
            let words = ["", "pub", "const", "async", "unsafe", "pub(crate)", "pub(super)"];
            if !before.split_whitespace().all(|word| words.contains(&word)) {
                continue;
            }
            let mut rest = lines[start..].iter().copied();
            skip_item(&mut rest);
            let length = lines.len() - start - rest.count();
            if length > FUNCTION_LINES_MAX {
                found.push(format!("{file}:{}: a function of {length} lines", start + 1));
            }
        }
    }
    found
}

#[test]
fn modules_import_only_from_below() {
    let sources = sources();
    assert!(sources.len() > 20, "the sources were found");
    let found = violations(&sources);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_and_unsafe_code_stay_in_their_places() {
    let found = misplaced(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let found = too_long(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Files that know no log, because a task's waker is code of the user.
const EVENTS_OF_NO_LOG: [&str; 1] = ["pipeline/state/wakers.rs"];

/// Returns events without the field `log`, which are useless if a process has several logs.
fn nameless_events(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let is_library = |file: &str| !file.starts_with("tool/") && !EVENTS_OF_NO_LOG.contains(&file);
    for (file, text) in sources.iter().filter(|(file, _)| is_library(file)) {
        let code = code(text);
        for level in ["error", "warn", "info", "debug", "trace"] {
            for event in code.split(&format!("tracing::{level}!(")).skip(1) {
                let fields = event.split(");").next().unwrap_or(event);
                let mut words = fields.split(|c: char| !c.is_alphanumeric() && c != '_');
                if !words.any(|word| word == "log") {
                    found.push(format!("{file}: an event without `log`: {fields}"));
                }
            }
        }
    }
    found
}

#[test]
fn every_event_names_its_log() {
    let found = nameless_events(&sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
    let source = |text: &str| vec![("storage/memory.rs".to_owned(), text.to_owned())];
    assert_eq!(nameless_events(&source("tracing::warn!(name, \"of the log\");")).len(), 1);
    assert!(nameless_events(&source("tracing::warn!(log = here(), name, \"gone\");")).is_empty());
}

#[test]
fn doctored_sources_are_caught() {
    let source = |file: &str, text: &str| vec![(file.to_owned(), text.to_owned())];
    let upward = [
        "use crate::wal::Wal;",
        "use crate::{lsn::Lsn, pipeline::{Core, ring::Ring}};",
        "fn f() { let x = crate::recovery::survey(); }",
        "use crate::{\n    error::Error,\n    storage::Storage,\n};",
        "use crate::nowhere::Thing;",
    ];
    for text in upward {
        assert_eq!(violations(&source("format/scan.rs", text)).len(), 1, "{text}");
    }
    let harmless = [
        "use crate::{error::Error, format::frame::Seed, lsn::Lsn};",
        "// use crate::wal::Wal;",
        "/// See [`Wal`](crate::Wal).\nfn f() { print(\"crate::wal\") }",
    ];
    for text in harmless {
        assert_eq!(violations(&source("format/scan.rs", text)), Vec::<String>::new(), "{text}");
    }
    let cycle =
        [source("lsn.rs", "use crate::error::Error;"), source("error.rs", "use crate::lsn::Lsn;")];
    assert_eq!(violations(&cycle.concat()).len(), 1, "a cycle within a rank");
    for text in [
        "use std::fs;",
        "use std::{fmt, fs::File};",
        "use tokio::fs::File;",
        "fn f() { unsafe {} }",
    ] {
        assert_eq!(misplaced(&source("segments/file.rs", text)).len(), 1, "{text}");
    }
    assert!(misplaced(&source("storage/file/mod.rs", "use std::fs;")).is_empty());
    let long = format!("fn f() {{\n{}}}\n", "    let brace = '{';\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(too_long(&source("lsn.rs", &long)).len(), 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert!(too_long(&source("lsn.rs", &tests)).is_empty());
    let file = "// a line\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(too_long(&source("lsn.rs", &file)).len(), 1);
}
