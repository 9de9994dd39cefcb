//! Extracts prose from Rust and Markdown files.

/// A piece of prose: a comment, a string or a paragraph, with the line where it begins.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Strings of fewer words are names or data.
const STRING_WORDS_MIN: usize = 3;

/// Returns the comments and the longer string literals of a Rust file.
///
/// Lines of one paragraph of a comment are joined, because a phrase can cross lines.
pub(crate) fn rust_texts(text: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut paragraph: Option<Text> = None;
    let mut in_fence = false;
    let (mut rest, mut line_after) = (text, 1);
    while let Some((token, token_text, after)) = next_token(rest) {
        let line = line_after;
        line_after += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
        match token {
            Token::Comment => {
                let comment = token_text.trim_start_matches(['/', '!']).trim();
                let is_fence = comment.starts_with("```");
                in_fence ^= is_fence;
                if is_fence || in_fence || comment.is_empty() {
                    texts.extend(paragraph.take());
                    continue;
                }
                let begins = ["#", "- ", "* ", "|"].iter().any(|mark| comment.starts_with(mark));
                if begins {
                    texts.extend(paragraph.take());
                }
                let paragraph = paragraph.get_or_insert(Text { line, text: String::new() });
                paragraph.text.push_str(&plain(comment));
                paragraph.text.push(' ');
            }
            Token::String => {
                let string = token_text.replace("\\\n", " ");
                if string.split_whitespace().count() >= STRING_WORDS_MIN {
                    let words: Vec<_> = string.split_whitespace().collect();
                    texts.push(Text { line, text: plain(&words.join(" ")) });
                }
            }
            Token::Code => {
                texts.extend(paragraph.take());
                in_fence = false;
            }
            Token::Space => {}
        }
    }
    texts.extend(paragraph);
    texts
}

enum Token {
    Comment,
    String,
    Code,
    Space,
}

/// Splits off a comment, a string literal, or one character; with its text and the rest.
fn next_token(text: &str) -> Option<(Token, &str, &str)> {
    let first = text.chars().next()?;
    if text.starts_with("//") {
        let (comment, rest) = text.split_at(text.find('\n').unwrap_or(text.len()));
        return Some((Token::Comment, comment, rest));
    }
    let hashes = text[1.min(text.len())..].bytes().take_while(|&byte| byte == b'#').count();
    if first == 'r' && text[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let inner = &text[hashes + 2..];
        let at = inner.find(&end).unwrap_or(inner.len());
        let rest = inner.get(at + end.len()..).unwrap_or_default();
        return Some((Token::String, &inner[..at], rest));
    }
    if first == '"' {
        let mut is_escaped = false;
        let end = text[1..].find(|character| {
            let ends = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            ends
        });
        let end = end.unwrap_or(text.len() - 1);
        return Some((Token::String, &text[1..=end], text.get(end + 2..).unwrap_or_default()));
    }
    let length = if first == '\'' { quoted_bytes(text) } else { word_bytes(text) };
    let (token, rest) = text.split_at(length);
    let is_space = first.is_whitespace();
    Some((if is_space { Token::Space } else { Token::Code }, token, rest))
}

/// Returns the length of a character literal; 1 for the quote of a lifetime.
fn quoted_bytes(text: &str) -> usize {
    let inner = &text[1..];
    let count = if inner.starts_with('\\') { 2 } else { 1 };
    let end = inner.char_indices().nth(count).map_or(inner.len(), |(at, _)| at);
    if inner[end..].starts_with('\'') { end + 2 } else { 1 }
}

/// Returns the length of the word that `text` begins with, or of its first character.
fn word_bytes(text: &str) -> usize {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let end = text.find(|character| !is_word(character)).unwrap_or(text.len());
    end.max(text.chars().next().map_or(0, char::len_utf8))
}

/// Returns the paragraphs of a Markdown file, without code blocks.
pub(crate) fn markdown_texts(text: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut paragraph: Option<Text> = None;
    let mut in_fence = false;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        let is_fence = trimmed.starts_with("```");
        in_fence ^= is_fence;
        let ends = is_fence || in_fence || trimmed.is_empty();
        let begins = ["#", "- ", "* ", "|", ">"].iter().any(|mark| trimmed.starts_with(mark));
        if ends || begins {
            texts.extend(paragraph.take());
        }
        if !ends {
            let paragraph = paragraph.get_or_insert(Text { line: at + 1, text: String::new() });
            paragraph.text.push_str(&plain(trimmed.trim_start_matches(['#', '-', ' ', '*', '>'])));
            paragraph.text.push(' ');
        }
    }
    texts.extend(paragraph);
    texts
}

/// Removes inline code and the targets of links.
fn plain(text: &str) -> String {
    let without_code: Vec<_> = text.split('`').step_by(2).collect();
    let mut plain = String::new();
    let mut rest = without_code.join("x");
    while let Some(at) = rest.find("](") {
        plain.push_str(&rest[..at]);
        let end = rest[at..].find(')').map_or(rest.len(), |end| at + end + 1);
        rest = rest[end..].to_owned();
    }
    plain.push_str(&rest);
    plain
}

/// Returns the names of the functions of a Rust file, with their lines.
pub(crate) fn function_names(text: &str) -> Vec<(usize, String)> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let names = lines.filter_map(|(at, line)| {
        let (before, after) = line.split_once("fn ")?;
        let words = ["pub", "async", "const", "unsafe", "extern"];
        let is_item =
            before.split_whitespace().all(|word| words.iter().any(|w| word.starts_with(w)));
        let name: String = after.chars().take_while(|&character| is_word(character)).collect();
        (is_item && !name.is_empty()).then_some((at + 1, name))
    });
    names.collect()
}
