//! What the documents name exists: a page about tests is worth as much as the tests it names.

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

/// The functions of each test file (or of the files in its directory), by the file's name; those of
/// `src` by their module's path.
fn functions() -> BTreeMap<String, BTreeSet<String>> {
    let mut functions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut waiting = vec![Path::new("tests").to_path_buf(), Path::new("src").to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let line = line.trim_start().trim_start_matches("async ");
                let name = line.strip_prefix("fn ")?;
                Some(name.split(['(', '<']).next()?.to_owned())
            });
            let relative = path.with_extension("");
            let parts: Vec<_> =
                relative.iter().skip(1).map(|part| part.to_str().unwrap()).collect();
            let mut module = parts.join("::");
            for suffix in ["::main", "::mod", "::tests"] {
                module = module.trim_end_matches(suffix).to_owned();
            }
            functions.entry(module).or_default().extend(names);
        }
    }
    functions
}

/// What stands in backquotes and looks like `file::test`, without a `…` at its end.
fn references(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains("::") && !name.contains(['/', ' ', '('])).collect()
}

/// The references that lead nowhere.
fn broken<'a>(text: &'a str, functions: &BTreeMap<String, BTreeSet<String>>) -> Vec<&'a str> {
    let leads_somewhere = |reference: &str| {
        if functions.contains_key(reference) {
            return true;
        }
        let (module, test) = reference.rsplit_once("::").unwrap();
        let names = functions.get(module);
        let matches = |name: &String| match test.strip_suffix('…') {
            Some(prefix) => name.starts_with(prefix),
            None => name == test,
        };
        names.is_some_and(|names| names.iter().any(matches))
    };
    // Types and functions of the interface begin with a capital letter or a name of ours.
    let is_test = |name: &&str| {
        !name.starts_with(char::is_uppercase)
            && !["simulation::for_each_seed", "std::fs", "tokio::fs"].contains(name)
    };
    references(text).into_iter().filter(is_test).filter(|name| !leads_somewhere(name)).collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let functions = functions();
    let text = fs::read_to_string("docs/TESTING.md").unwrap();
    let count = references(&text).len();
    assert!(count > 60, "only {count} references: nothing was checked");
    assert_eq!(broken(&text, &functions), Vec::<&str>::new());
}

#[test]
fn a_test_that_does_not_exist_is_noticed() {
    let functions = functions();
    let text = "`crashes::no_such_test`, `peers::row_99…`, `peers::row_01…`, `nowhere::at_all`";
    assert_eq!(
        broken(text, &functions),
        ["crashes::no_such_test", "peers::row_99…", "nowhere::at_all"]
    );
}
