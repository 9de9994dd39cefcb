//! The rules for prose, as far as a test can hold them: no banned words, short lines, short names.
//!
//! It reads comments, rustdoc, string literals, names of functions and Markdown. Banned are words
//! of speech for technical acts, persons for technical subjects, and idioms that need a second
//! reading.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod extract;
mod unclean;

use std::{collections::BTreeMap, fs, path::Path};

use extract::{Text, function_names, markdown_texts, rust_texts};
use unclean::UNCLEAN;

/// Words and phrases that no prose may have.
const BANNED: &[&str] = &[
    // Persons as subjects or objects.
    "nobody",
    "whoever",
    "somebody",
    "anybody",
    "everybody",
    "those who",
    "those that",
    "one who",
    "and who",
    "by who",
    "for who",
    "of who",
    "to who",
    "who is",
    "who has",
    "who was",
    "who can",
    "who does",
    // Clauses as subjects or objects.
    "what is",
    "what was",
    "what has",
    "what it",
    "what they",
    // Verbs of speech, and of standing and going.
    "tells",
    "told",
    "says",
    "said",
    "asks",
    "asked",
    "answers",
    "answered",
    "stands",
    "stood",
    "let go",
    "lets go",
    "at it",
    "go on",
    "goes on",
    "going on",
    "went on",
    "come back",
    "comes back",
    "came back",
    "holds up",
    "held up",
    // Idioms.
    "so many",
    "so manieth",
    "all the same",
    "in vain",
    "as ever",
    "of its own",
    "of one's own",
    "but for",
    "anew",
    "for good",
    "by heart",
];

/// Words with which no sentence may begin, unless it is a question.
const BANNED_BEGINNINGS: [&str; 3] = ["Who ", "What ", "Where "];

/// Words that no function's name may have.
const BANNED_IN_NAMES: [&str; 9] =
    ["nobody", "whoever", "somebody", "anybody", "everybody", "who", "told", "tells", "untold"];

/// Right uses of a banned phrase, exactly as they are written.
const ALLOWED: &[&str] = &["What happens if"];

const MARKDOWN_LINE_CHARACTERS_MAX: usize = 120;
const COMMENT_LINE_CHARACTERS_MAX: usize = 100;
const NAME_CHARACTERS_MAX: usize = 50;

/// Folders and files with prose. This test has to name the banned words.
const PLACES: [&str; 12] = [
    "src",
    "tests",
    "crates",
    "adapters",
    "benches",
    "fuzz",
    "examples",
    "models",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
];
const EXEMPT: &str = "tests/prose/main.rs";

/// Returns the banned phrases in a text.
fn banned_in(text: &str) -> Vec<&'static str> {
    let mut text = text.to_owned();
    for allowed in ALLOWED {
        text = text.replace(allowed, "");
    }
    let is_question = text.trim_end().ends_with('?');
    let is_word =
        |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let begins = |word: &&&str| {
        let marks = [". ", ": ", "; ", "! "];
        text.starts_with(**word) || marks.iter().any(|mark| text.contains(&format!("{mark}{word}")))
    };
    let beginnings = BANNED_BEGINNINGS.iter().filter(begins).copied();
    let lower = text.to_lowercase();
    let has = |phrase: &&&str| {
        lower.match_indices(**phrase).any(|(at, found)| {
            let before = lower[..at].chars().next_back();
            let after = lower[at + found.len()..].chars().next();
            !is_word(before) && !is_word(after)
        })
    };
    let phrases = BANNED.iter().filter(has).copied();
    if is_question { phrases.collect() } else { phrases.chain(beginnings).collect() }
}

/// Returns what breaks the rules in a file, a line each.
fn findings(file: &str, text: &str) -> Vec<String> {
    let is_rust = file.ends_with(".rs");
    let texts = if is_rust { rust_texts(text) } else { markdown_texts(text) };
    let mut found = Vec::new();
    for Text { line, text } in &texts {
        for phrase in banned_in(text) {
            found.push(format!("{file}:{line}: `{}` in: {text}", phrase.trim()));
        }
    }
    let mut in_fence = false;
    for (at, line) in text.lines().enumerate() {
        let content = line.trim_start().trim_start_matches(['/', '!', ' ']);
        in_fence ^= content.starts_with("```");
        // A fence holds code or a diagram, not prose.
        let is_prose = !in_fence && (!is_rust || line.trim_start().starts_with("//"));
        // A table or a link cannot be wrapped.
        let is_fixed =
            line.trim_start().starts_with('|') || line.contains("](") || line.contains("://");
        let characters = line.chars().count();
        let characters_max =
            if is_rust { COMMENT_LINE_CHARACTERS_MAX } else { MARKDOWN_LINE_CHARACTERS_MAX };
        let in_text = texts.iter().any(|text| text.line <= at + 1);
        if is_prose && in_text && !is_fixed && characters > characters_max {
            found.push(format!("{file}:{}: {characters} characters", at + 1));
        }
    }
    if is_rust {
        for (line, name) in function_names(text) {
            if name.len() > NAME_CHARACTERS_MAX {
                found.push(format!("{file}:{line}: `{name}` has {} characters", name.len()));
            }
            if let Some(word) = name.split('_').find(|word| BANNED_IN_NAMES.contains(word)) {
                found.push(format!("{file}:{line}: `{word}` in the name `{name}`"));
            }
        }
    }
    found
}

/// Returns the room of a file: the smallest part that can be listed as not clean yet.
fn room(file: &str) -> String {
    let mut names = file.split('/');
    let first = names.next().unwrap_or_default();
    match names.next() {
        Some(second) => format!("{first}/{second}"),
        None => first.to_owned(),
    }
}

fn files() -> Vec<(String, String)> {
    fn collect(path: &Path, root: &Path, to: &mut Vec<(String, String)>) {
        if path.is_dir() {
            // Generated files are no prose.
            if path.ends_with("target") || path.ends_with("corpus") || path.ends_with("artifacts") {
                return;
            }
            for entry in fs::read_dir(path).unwrap() {
                collect(&entry.unwrap().path(), root, to);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            if name != EXEMPT {
                to.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for place in PLACES {
        collect(&root.join(place), root, &mut files);
    }
    files.sort();
    files
}

#[test]
fn prose_has_no_banned_words_and_no_long_lines() {
    let files = files();
    assert!(files.len() > 200, "the files were found");
    let mut rooms: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in &files {
        rooms.entry(room(file)).or_default().extend(findings(file, text));
    }
    let count_max = |room: &str| {
        let listed = UNCLEAN.iter().find(|(listed, _)| *listed == room);
        listed.map_or(0, |(_, count)| *count)
    };
    let worse: Vec<_> =
        rooms.iter().filter(|(room, found)| found.len() > count_max(room)).collect();
    let report: Vec<_> = worse
        .iter()
        .map(|(room, found)| {
            let (count, max) = (found.len(), count_max(room));
            format!("{room}: {count} findings, {max} at most:\n{}", found.join("\n"))
        })
        .collect();
    assert!(report.is_empty(), "{}", report.join("\n"));
    let is_clean = |room: &str| rooms.get(room).is_none_or(Vec::is_empty);
    let clean: Vec<_> = UNCLEAN.iter().filter(|(room, _)| is_clean(room)).collect();
    assert!(clean.is_empty(), "clean now; remove them from unclean.rs: {clean:#?}");
}

#[test]
fn doctored_prose_is_found() {
    let doctored = [
        "// Nobody waits for it.",
        "// It is told\n// to stop.",
        "/// The log is open all\n/// the same.",
        "//! Who waits is woken.",
        "fn f() {\n    // Done. What remains is closed.\n}",
        "const TEXT: &str = \"the lock that somebody holds\";",
        "const TEXT: &str = r#\"the \"lock\" stands here\"#;",
        "const TEXT: &str = \"the text goes \\\n    on and on\";",
        "fn nobody_waits() {}",
        "fn a_name_that_tries_to_be_a_sentence_and_is_much_too_long() {}",
    ];
    for text in doctored {
        assert_eq!(findings("src/doctored.rs", text).len(), 1, "{text}");
    }
    let long = format!("// {}\n", "long ".repeat(25));
    assert_eq!(findings("src/doctored.rs", &long).len(), 1);
    for text in ["It stands\nthere.", "- a list that is\n  told", "# Whoever\n", "| a | so many |"]
    {
        assert_eq!(findings("docs/DOCTORED.md", text).len(), 1, "{text}");
    }
    assert_eq!(findings("docs/DOCTORED.md", &"long ".repeat(25)).len(), 1);
}

#[test]
fn harmless_text_is_not_found() {
    let harmless = [
        "// The standstill is foretold; a whatsit answers_nothing.",
        "// The name `nobody` is quoted.",
        "/// ```\n/// let told = nobody();\n/// ```",
        "fn f() { let told = \"told\"; let c = '\"'; let d = '\\''; }",
        "fn f<'a>(told: &'a str) {}",
        "// What does it cost?",
    ];
    for text in harmless {
        assert_eq!(findings("src/harmless.rs", text), Vec::<String>::new(), "{text}");
    }
    let table = format!("| {} |", "long ".repeat(25));
    for text in ["```text\nnobody\n```\nText.", "A [word](https://who.is/what-it-is).", &table] {
        assert_eq!(findings("docs/HARMLESS.md", text), Vec::<String>::new(), "{text}");
    }
}
