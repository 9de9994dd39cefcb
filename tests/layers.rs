//! The layers, as the sources have them: a module imports only from its own rank and from below.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

const RANKS: [&[&str]; 12] = [
    &["error", "lsn", "options", "watermarks", "record", "sabotage", "sync", "turn"],
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
    &["reader", "typed", "raft"],
];
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// A source file: its path under `src`, and its text.
type Source = (String, String);

fn sources() -> Vec<Source> {
    fn collect(directory: &Path, root: &Path, to: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, root, to);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                to.push((name.replace('\\', "/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources);
    sources.sort();
    sources
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

/// The text without comments, without what stands in literals, and without test modules.
fn code(text: &str) -> String {
    let text = blank_literals(text);
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let cfg = line.trim_start();
        if cfg.starts_with("#[cfg(test)]") || cfg.starts_with("#[cfg(all(test") {
            skip_item(&mut lines);
            continue;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// Skips up to the end of the item that begins: its closing brace, or its semicolon.
fn skip_item<'a>(lines: &mut impl Iterator<Item = &'a str>) {
    let mut depth = 0i32;
    let mut opened = false;
    for line in lines {
        for byte in line.bytes() {
            depth += i32::from(byte == b'{') - i32::from(byte == b'}');
            opened |= byte == b'{';
        }
        let ends = opened && depth == 0 || !opened && line.trim_end().ends_with(';');
        if ends {
            return;
        }
    }
}

fn blank_literals(text: &str) -> String {
    let mut blanked = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if character == '"' {
            string_bytes(rest)
        } else if character == '\'' {
            // A lifetime has no closing quote.
            let escaped = rest[1..].starts_with('\\');
            let end = rest[1..].char_indices().nth(if escaped { 2 } else { 1 });
            let end = end.map_or(0, |(at, _)| at + 1);
            if rest[end..].starts_with('\'') && end > 1 { end + 1 } else { 0 }
        } else {
            0
        };
        let lines = rest[..skipped].matches('\n').count();
        blanked.push_str(&"\n".repeat(lines));
        if skipped == 0 {
            blanked.push(character);
            rest = &rest[character.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    blanked
}

fn string_bytes(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The first names behind each `prefix` (such as `crate::`), groups in braces included.
fn names_behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
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

/// What breaks the layering, a line each.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    // The tool is a crate of its own: the compiler lets it see the public interface alone.
    let is_ranked = |file: &str| file != "lib.rs" && !file.starts_with("bin/");
    for (file, text) in sources.iter().filter(|(file, _)| is_ranked(file)) {
        let from = module(file);
        let Some(from_rank) = rank(from) else {
            found.push(format!("{file}: the module `{from}` has no rank"));
            continue;
        };
        // Tests are code too: they keep the layers as well.
        for to in names_behind(&blank_literals(text), "crate::") {
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
    // Of one rank a module may import another, but not in a circle.
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
        found.push(format!("a circle of imports among {:?}", left.keys()));
    }
    found
}

/// What is used where it must not be.
fn misplaced(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in sources {
        let code = code(text);
        let uses = |prefix: &str, name: &str| names_behind(&code, prefix).contains(name);
        let may = ["storage/file/", "bin/highwater/files/"];
        if uses("std::", "fs") && !may.iter().any(|place| file.starts_with(place)) {
            found.push(format!("{file}: std::fs"));
        }
        if uses("tokio::", "fs") {
            found.push(format!("{file}: tokio::fs"));
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let has_unsafe = code.split(|c| !is_word(c)).any(|word| word == "unsafe");
        if has_unsafe && file != "pipeline/ring.rs" {
            found.push(format!("{file}: unsafe"));
        }
    }
    found
}

/// Files and functions that are too long, tests left out.
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
    let circle =
        [source("lsn.rs", "use crate::error::Error;"), source("error.rs", "use crate::lsn::Lsn;")];
    assert_eq!(violations(&circle.concat()).len(), 1, "a circle within a rank");
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
