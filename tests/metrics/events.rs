//! `docs/METRICS.md` lists the events that the sources report.

use std::{collections::BTreeSet, fs, path::Path};

/// Returns the text up to the parenthesis that closes it.
fn arguments(text: &str) -> &str {
    let (mut depth, mut is_quoted, mut is_escaped) = (1, false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    panic!("an event without an end: {text}");
}

/// Splits arguments at their commas.
fn split(arguments: &str) -> Vec<String> {
    let (mut parts, mut depth, mut is_quoted) = (vec![String::new()], 0, false);
    for character in arguments.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            ',' if !is_quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(character);
    }
    let parts = parts.iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Returns the target of the events of a source file: its module.
fn target(file: &Path) -> String {
    let module = file.strip_prefix("src").unwrap().with_extension("");
    let mut names: Vec<_> = module.iter().map(|name| name.to_str().unwrap()).collect();
    if names.last() == Some(&"mod") {
        names.pop();
    }
    format!("highwater::{}", names.join("::"))
}

/// Returns a row of the page for each event of a source text.
fn events(text: &str, target: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for level in ["error", "warn", "info", "debug", "trace"] {
        for event in text.split(&format!("tracing::{level}!(")).skip(1) {
            let mut parts = split(arguments(event));
            let message = parts.pop().unwrap();
            let fields: Vec<_> = parts
                .iter()
                .map(|part| part.split(['=']).next().unwrap().trim().trim_matches(['%', '?']))
                .map(|field| format!("`{field}`"))
                .collect();
            let message = message.trim_matches('"').replace("{report}", "the recovery report");
            let fields = if fields.is_empty() { "–".to_owned() } else { fields.join(", ") };
            rows.push(format!("| {level} | `{target}` | {message} | {fields} |"));
        }
    }
    rows
}

/// Returns the rows of all events of the library.
fn reported() -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    let mut waiting = vec![Path::new("src").to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                rows.extend(events(&fs::read_to_string(&path).unwrap(), &target(&path)));
            }
        }
    }
    rows
}

fn documented(page: &str) -> BTreeSet<String> {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let is_event = |line: &&str| levels.iter().any(|it| line.starts_with(&format!("| {it} |")));
    page.lines().filter(is_event).map(str::to_owned).collect()
}

#[test]
fn page_lists_each_event() {
    let page = fs::read_to_string("docs/METRICS.md").unwrap();
    let (reported, documented) = (reported(), documented(&page));
    let missing: Vec<_> = reported.difference(&documented).map(String::as_str).collect();
    assert!(missing.is_empty(), "not in docs/METRICS.md:\n{}", missing.join("\n"));
    let gone: Vec<_> = documented.difference(&reported).collect();
    assert!(gone.is_empty(), "no longer reported: {gone:#?}");
    assert!(reported.len() > 25, "{}", reported.len());
}

#[test]
fn doctored_event_is_detected() {
    let text = "tracing::warn!(\n log = a(b, c),\n %error, ?time,\n \"it (failed), twice\"\n);";
    assert_eq!(
        events(text, "highwater::x"),
        ["| warn | `highwater::x` | it (failed), twice | `log`, `error`, `time` |"]
    );
}
