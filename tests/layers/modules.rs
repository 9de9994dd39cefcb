//! Resolves the paths in a crate's sources to the files of the named items.
//!
//! It reads tokens and not types. Seen are `use` declarations, re-exports and qualified paths.
//! Not seen are method calls and names that only a macro produces.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, code, is_test_file, is_word};

/// Names of modules, from the crate's root down.
type Path = Vec<String>;

/// The most re-exports that are followed, because a cycle of them must not loop for ever.
const HOPS_MAX: usize = 16;

/// One module: a file, or an inline module within one.
#[derive(Default)]
struct Module {
    file: String,
    /// The name that each `use` binds, its path, and whether it is a re-export.
    uses: Vec<(String, Path, bool)>,
    /// Paths of two or more names outside of `use` declarations.
    paths: Vec<Path>,
    /// Names of the items that the module defines.
    items: BTreeSet<String>,
    /// All names outside of `use` declarations.
    words: BTreeSet<String>,
}

/// Returns the files that each file imports from.
pub(crate) fn imports(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let mut modules = BTreeMap::new();
    for (file, text) in sources.iter().filter(|(file, _)| !is_test_file(file)) {
        let tokens = tokens(&code(text));
        read_module(&mut tokens.iter().map(String::as_str), path_of(file), file, &mut modules);
    }
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (at, module) in &modules {
        // A re-export ties the importer to the definer, and the re-exporting file only if it uses
        // the name itself.
        let used = module
            .uses
            .iter()
            .filter(|(name, _, exported)| !exported || module.words.contains(name));
        let paths = used.map(|(_, path, _)| path).chain(&module.paths);
        let files = paths.filter_map(|path| resolve(&modules, at, path, HOPS_MAX)?.file());
        let targets = imports.entry(module.file.clone()).or_default();
        targets.extend(files.filter(|file| **file != module.file).cloned());
    }
    imports
}

/// The module path of a file: `a/b.rs` and `a/b/mod.rs` are `a::b`.
fn path_of(file: &str) -> Path {
    let mut names: Path = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        names.pop();
    }
    names
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(character) = rest.chars().next() {
        let length = if is_word(character) {
            rest.find(|character| !is_word(character)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            character.len_utf8()
        };
        if !character.is_whitespace() {
            tokens.push(rest[..length].to_owned());
        }
        rest = &rest[length..];
    }
    tokens
}

/// Reads up to the brace that closes the module, or to the end.
fn read_module<'a>(
    tokens: &mut (impl Iterator<Item = &'a str> + Clone),
    at: Path,
    file: &str,
    modules: &mut BTreeMap<Path, Module>,
) {
    const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    let mut depth = 0;
    let mut before = "";
    while let Some(token) = tokens.next() {
        let mut ahead = tokens.clone();
        let (next, after) = (ahead.next().unwrap_or(""), ahead.next().unwrap_or(""));
        match token {
            "{" => depth += 1,
            "}" if depth == 0 => break,
            "}" => depth -= 1,
            "mod" if after == "{" => {
                let inner = [at.clone(), vec![next.to_owned()]].concat();
                *tokens = ahead;
                read_module(tokens, inner, file, modules);
            }
            "use" if next != "<" => {
                // `pub use`, or the end of `pub(crate) use`.
                let exported = matches!(before, "pub" | ")");
                read_use(tokens, &[], exported, &mut module.uses);
            }
            _ if next == "::" && before != "::" && token.starts_with(is_word) => {
                module.words.insert(token.to_owned());
                module.paths.push(read_path(token, tokens));
            }
            _ if ITEMS.contains(&token) || token == "macro_rules" => {
                let name = if token == "macro_rules" { after } else { next };
                module.items.insert(name.to_owned());
            }
            _ => drop(module.words.insert(token.to_owned())),
        }
        before = token;
    }
    modules.insert(at, module);
}

/// Reads the rest of a path that begins with `first`.
fn read_path<'a>(first: &str, tokens: &mut (impl Iterator<Item = &'a str> + Clone)) -> Path {
    let mut path = vec![first.to_owned()];
    loop {
        let mut ahead = tokens.clone();
        match (ahead.next(), ahead.next()) {
            (Some("::"), Some(name)) if name.starts_with(is_word) => {
                path.push(name.to_owned());
                *tokens = ahead;
            }
            _ => return path,
        }
    }
}

/// Reads a tree of imports below `prefix`, up to its `;`, `,` or `}`; returns that token.
fn read_use<'a>(
    tokens: &mut (impl Iterator<Item = &'a str> + Clone),
    prefix: &[String],
    exported: bool,
    uses: &mut Vec<(String, Path, bool)>,
) -> &'a str {
    let mut path = prefix.to_vec();
    let mut alias = None;
    let mut is_group = false;
    let end = loop {
        match tokens.next() {
            Some("::") => {}
            Some("as") => alias = tokens.next(),
            Some("{") => {
                is_group = true;
                while read_use(tokens, &path, exported, uses) == "," {}
            }
            Some(end @ (";" | "," | "}")) => break end,
            Some(name) => path.push(name.to_owned()),
            None => break ";",
        }
    };
    if path.last().is_some_and(|name| name == "self") && path.len() > 1 {
        path.pop();
    }
    if !is_group && path.len() > prefix.len().min(1) {
        let name = alias.map_or_else(|| path.last().cloned().unwrap_or_default(), str::to_owned);
        uses.push((name, path, exported));
    }
    end
}

/// The end of a path.
enum Target<'a> {
    Module(Path),
    Item(&'a String),
}

impl<'a> Target<'a> {
    /// The file that defines it. A module itself is no import: the paths through it are.
    fn file(self) -> Option<&'a String> {
        match self {
            Target::Module(_) => None,
            Target::Item(file) => Some(file),
        }
    }
}

/// Resolves a path from a module; `None` if it leads out of the crate.
fn resolve<'a>(
    modules: &'a BTreeMap<Path, Module>,
    from: &Path,
    path: &[String],
    hops: usize,
) -> Option<Target<'a>> {
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => Path::new(),
        "self" => from.clone(),
        "super" => from.split_last()?.1.to_vec(),
        _ => {
            rest = path;
            from.clone()
        }
    };
    let is_relative = rest.len() == path.len();
    while let Some((name, left)) = rest.split_first() {
        if name == "super" {
            at.pop();
            rest = left;
            continue;
        }
        let inner = [at.clone(), vec![name.clone()]].concat();
        if modules.contains_key(&inner) {
            at = inner;
            rest = left;
            continue;
        }
        let module = modules.get(&at)?;
        // A function may have the name of an imported module; only the module has paths below it.
        let bound = module.uses.iter().find(|(bound, ..)| bound == name);
        if module.items.contains(name) && (left.is_empty() || bound.is_none()) {
            return Some(Target::Item(&module.file));
        }
        let hops = hops.checked_sub(1)?;
        if let Some((_, path, _)) = bound {
            // `use bytes::Bytes` must not look for `bytes` in its own declaration.
            if path.first() == Some(name) && is_relative && *from == at {
                return None;
            }
            return match resolve(modules, &at, path, hops)? {
                Target::Module(module) if !left.is_empty() => {
                    let path = [vec!["crate".to_owned()], module, left.to_vec()].concat();
                    resolve(modules, &at, &path, hops)
                }
                target => Some(target),
            };
        }
        let mut globs = module.uses.iter().filter(|(name, ..)| name == "*");
        let found = globs.find_map(|(_, path, _)| {
            let path = [&path[..path.len() - 1], rest].concat();
            resolve(modules, &at, &path, hops)
        });
        // A macro can have defined it, if the path has reached a module of this crate.
        let is_inside = !is_relative || at != *from;
        return found.or_else(|| is_inside.then_some(Target::Item(&module.file)));
    }
    Some(Target::Module(at))
}
