//! Reads source files, and strips comments, literals and test modules.

use std::{fs, path::Path};

/// A source file: its path, and its text.
pub(crate) type Source = (String, String);

/// Returns all Rust files below `directory`, by their paths relative to it.
pub(crate) fn sources_in(directory: &Path) -> Vec<Source> {
    fn collect(directory: &Path, root: &Path, to: &mut Vec<Source>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // Build directories hold generated sources.
                if !path.ends_with("target") {
                    collect(&path, root, to);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                to.push((name.replace('\\', "/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut sources = Vec::new();
    collect(directory, directory, &mut sources);
    sources.sort();
    sources
}

/// Returns the files of the library, and those of the command-line tool under `tool/`.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = sources_in(&root.join("src"));
    let tool = sources_in(&root.join("crates/highwater-cli/src"));
    sources.extend(tool.into_iter().map(|(name, text)| (format!("tool/{name}"), text)));
    sources.sort();
    sources
}

pub(crate) fn is_test_file(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

/// Returns the text without comments, contents of literals and test modules.
pub(crate) fn code(text: &str) -> String {
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

/// Skips to the end of the item that begins here: its closing brace or its semicolon.
pub(crate) fn skip_item<'a>(lines: &mut impl Iterator<Item = &'a str>) {
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

/// Returns the text without comments and contents of literals; line breaks stay.
pub(crate) fn blank_literals(text: &str) -> String {
    let mut blanked = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if character == '"' {
            string_bytes(rest)
        } else if character == 'r' && !blanked.ends_with(is_word) {
            raw_string_bytes(rest)
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

pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
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

/// Returns the length of the raw string that `text` begins with; 0 if it begins with none.
fn raw_string_bytes(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|&byte| byte == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = hashes + 2;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}
