//! Checks the tests and links that the documents name.
//!
//! A guarantee counts only with its test, so each named test must exist.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Returns the functions of each test file (or of the files in its directory), by the file's name.
/// Those of `src` are listed by their module's path. The command-line tool's and the models' are
/// among them.
fn functions() -> BTreeMap<String, BTreeSet<String>> {
    let mut functions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let roots = [
        "tests",
        "src",
        "crates/highwater-cli/tests",
        "crates/highwater-cli/src",
        "crates/highwater-replicate/tests",
        "crates/highwater-replicate/src",
        "models/src",
    ];
    let mut waiting: Vec<_> = roots.map(|root| (root, PathBuf::from(root))).into();
    while let Some((root, directory)) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push((root, path));
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
            let relative = path.strip_prefix(root).unwrap().with_extension("");
            let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
            let mut module = parts.join("::");
            for suffix in ["::main", "::mod", "::tests"] {
                module = module.trim_end_matches(suffix).to_owned();
            }
            functions.entry(module).or_default().extend(names);
        }
    }
    functions
}

/// Returns each text in backquotes that looks like `file::test`.
fn references(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.contains("::") && !name.contains(['/', ' ', '('])).collect()
}

/// Returns the references that lead to no test.
fn broken<'a>(text: &'a str, functions: &BTreeMap<String, BTreeSet<String>>) -> Vec<&'a str> {
    let exists = |reference: &str| {
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
    // Types begin with a capital letter. The listed names are functions and modules.
    let is_test = |name: &&str| {
        !name.starts_with(char::is_uppercase)
            && ![
                "simulation::for_each_seed",
                "simulation::pass_time",
                "simulation::spawn",
                "std::fs",
                "tokio::fs",
            ]
            .contains(name)
    };
    references(text).into_iter().filter(is_test).filter(|name| !exists(name)).collect()
}

/// The pages that name tests, and the smallest number of test names that each must have.
const PAGES: [(&str, usize); 10] = [
    ("docs/DURABILITY.md", 200),
    ("docs/MODELS.md", 40),
    ("docs/SECURITY.md", 10),
    ("docs/TESTING.md", 5),
    ("docs/guide/crash_tests.md", 3),
    ("docs/guide/deploying.md", 25),
    ("docs/guide/operating.md", 20),
    ("docs/guide/stalls.md", 20),
    ("docs/guide/stores.md", 5),
    ("docs/guide/what-happens-if.md", 50),
];

#[test]
fn each_named_test_exists() {
    let functions = functions();
    for (page, count_min) in PAGES {
        let text = fs::read_to_string(page).unwrap();
        let count = references(&text).len();
        assert!(
            count >= count_min,
            "{page}: only {count} references: the pages have another format"
        );
        assert_eq!(broken(&text, &functions), Vec::<&str>::new(), "{page}");
    }
}

/// Returns the names of the alert rules that a page does not have in backquotes.
fn missing_alerts<'a>(rules: &'a str, page: &str) -> Vec<&'a str> {
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.filter(|name| !page.contains(&format!("`{name}`"))).collect()
}

#[test]
fn each_alert_rule_has_an_action() {
    let rules = fs::read_to_string("docs/dashboards/alerts.yml").unwrap();
    let page = fs::read_to_string("docs/guide/operating.md").unwrap();
    assert!(rules.matches("- alert: ").count() >= 8, "the rules have another format");
    assert_eq!(missing_alerts(&rules, &page), Vec::<&str>::new());
    assert_eq!(missing_alerts("    - alert: Unheard\n", &page), ["Unheard"]);
}

/// Returns the documents of the repository.
fn documents() -> Vec<PathBuf> {
    let directories = [
        ".",
        "benches/results",
        "crates/highwater-cli",
        "crates/highwater-openraft",
        "crates/highwater-openraft09",
        "docs",
        "docs/guide",
        "examples/raft-kv",
        "examples/server",
    ];
    let entries = directories.iter().flat_map(|directory| fs::read_dir(directory).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Returns the anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Returns the links of a page that lead to no file or to no heading.
fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let is_local = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
    let is_dead = |target: &&str| {
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let file = match file {
            "" => path.to_owned(),
            file => path.parent().unwrap().join(file),
        };
        if heading.is_empty() {
            return !file.exists();
        }
        let Ok(page) = fs::read_to_string(file) else { return true };
        !page.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
    };
    targets.filter(is_local).filter(is_dead).map(str::to_owned).collect()
}

#[test]
fn document_links_resolve() {
    let mut count = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        count += text.matches("](").count();
        assert_eq!(dead_links(&path, &text), Vec::<String>::new(), "{}", path.display());
    }
    assert!(count > 100, "only {count} links: the pages have another format");
}

#[test]
fn each_document_is_in_the_index() {
    let index = fs::read_to_string("docs/README.md").unwrap();
    let guide = fs::read_to_string("src/guide.rs").unwrap();
    for path in documents() {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.parent() == Some(Path::new("docs/guide")) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains("```rust,ignore"), "{name}: an example isn't compiled");
            assert!(index.contains(&format!("(guide/{name})")), "{name} is not in docs/README.md");
            assert!(guide.contains(&format!("\"{name}\"")), "{name} is not in src/guide.rs");
        } else if path.parent() == Some(Path::new("docs")) && name != "README.md" {
            assert!(index.contains(&format!("({name})")), "{name} is not in docs/README.md");
        }
    }
}

/// Returns the paths in backquotes that begin with one of our directories and don't exist, neither
/// from the root nor from the directory of the page.
fn missing_paths<'a>(page: &Path, text: &'a str) -> Vec<&'a str> {
    const DIRECTORIES: [&str; 8] =
        ["adapters/", "benches/", "crates/", "docs/", "examples/", "models/", "src/", "tests/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |quoted: &&str| {
        DIRECTORIES.iter().any(|directory| quoted.starts_with(directory))
            && !quoted.contains([' ', '*', '…', ':', '\n'])
    };
    let directory = page.parent().unwrap();
    let is_missing = |path: &&str| !Path::new(path).exists() && !directory.join(path).exists();
    quoted.filter(is_path).filter(is_missing).collect()
}

#[test]
fn paths_in_documents_exist() {
    let mut count = 0;
    // The changelog also names paths of the past.
    for path in documents().iter().filter(|path| !path.ends_with("CHANGELOG.md")) {
        let text = fs::read_to_string(path).unwrap();
        count += text.matches("`tests/").count();
        assert_eq!(missing_paths(path, &text), Vec::<&str>::new(), "{}", path.display());
    }
    assert!(count > 30, "only {count} paths: the pages have another format");
    assert_eq!(
        missing_paths(Path::new("a.md"), "`src/lib.rs`, `src/none.rs`, `tests/*`"),
        ["src/none.rs"]
    );
}

#[test]
fn dead_link_is_detected() {
    let text = "[a](nowhere.md), [b](TESTING.md#no-such-heading), [c](TESTING.md), [d](#gone)";
    let dead = dead_links(Path::new("docs/TESTING.md"), text);
    assert_eq!(dead, ["nowhere.md", "TESTING.md#no-such-heading", "#gone"]);
}

#[test]
fn missing_test_is_detected() {
    let functions = functions();
    let text =
        "`crashes::no_such_test`, `peers::no_such…`, `peers::second_process…`, `nowhere::at_all`";
    assert_eq!(
        broken(text, &functions),
        ["crashes::no_such_test", "peers::no_such…", "nowhere::at_all"]
    );
}
