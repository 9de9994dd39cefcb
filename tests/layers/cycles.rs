//! Files of a crate must not import each other in a cycle.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    modules::imports,
    remaining::REMAINING,
    sources::{Source, sources_in},
};

/// Fewer crates than this mean that the search for them is broken.
const CRATES_MIN: usize = 8;

/// Returns the sources of each crate: of each folder that has a `lib.rs` or a `main.rs`.
fn crates(sources: &[Source]) -> BTreeMap<String, Vec<Source>> {
    let roots: BTreeSet<&str> = sources
        .iter()
        .filter_map(|(file, _)| {
            let (folder, name) = file.rsplit_once('/')?;
            // Test crates mount modules of others by `#[path]`.
            let is_root = matches!(name, "lib.rs" | "main.rs") && !is_in(file, "tests");
            is_root.then_some(folder)
        })
        .collect();
    let mut crates: BTreeMap<String, Vec<Source>> = BTreeMap::new();
    for (file, text) in sources {
        let root = roots.iter().filter(|root| file.starts_with(&format!("{root}/")));
        // The innermost one: `src/bin/tool/` is not a part of `src/`.
        let Some(root) = root.max_by_key(|root| root.len()) else { continue };
        // A tool in one file has no modules.
        if !file.starts_with(&format!("{root}/bin/")) {
            let name = file[root.len() + 1..].to_owned();
            crates.entry((*root).to_owned()).or_default().push((name, text.clone()));
        }
    }
    crates
}

fn is_in(file: &str, folder: &str) -> bool {
    file.split('/').any(|name| name == folder)
}

/// Returns the cycles of a crate: the files of each, sorted.
fn cycles(sources: &[Source]) -> Vec<Vec<String>> {
    let imports = imports(sources);
    let reached: BTreeMap<_, _> =
        imports.keys().map(|file| (file, reachable(&imports, file))).collect();
    let mut cycles = BTreeSet::new();
    for (file, reached_from_file) in &reached {
        let cycle: Vec<String> = reached_from_file
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*file)))
            .cloned()
            .collect();
        if !cycle.is_empty() {
            cycles.insert(cycle);
        }
    }
    cycles.into_iter().collect()
}

/// Returns the files that `file` imports, directly or through others.
fn reachable(imports: &BTreeMap<String, BTreeSet<String>>, file: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file.to_owned()];
    while let Some(next) = open.pop() {
        for target in imports.get(&next).into_iter().flatten() {
            if reached.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    reached
}

/// Describes a cycle: its entry for `remaining.rs`, and the imports that form it.
fn describe(root: &str, sources: &[Source], cycle: &[String]) -> String {
    let imports = imports(sources);
    let mut lines = vec![format!("    ({root:?}, &{cycle:?}),")];
    for file in cycle {
        for target in imports[file].iter().filter(|target| cycle.contains(target)) {
            lines.push(format!("        // {file} imports {target}"));
        }
    }
    lines.join("\n")
}

#[test]
fn files_import_each_other_in_no_cycle() {
    let sources = sources_in(Path::new(env!("CARGO_MANIFEST_DIR")));
    let crates = crates(&sources);
    assert!(crates.len() >= CRATES_MIN, "the crates were found: {:?}", crates.keys());
    let found: Vec<_> = crates
        .iter()
        .flat_map(|(root, sources)| cycles(sources).into_iter().map(move |cycle| (root, cycle)))
        .collect();
    let is_same = |(root, cycle): &(&String, Vec<String>), known: &(&str, &[&str])| {
        *root == known.0 && *cycle == known.1
    };
    let new = found.iter().filter(|found| !REMAINING.iter().any(|known| is_same(found, known)));
    let new: Vec<_> = new.map(|(root, cycle)| describe(root, &crates[*root], cycle)).collect();
    assert!(new.is_empty(), "files import each other in a cycle:\n{}", new.join("\n"));
    let gone = REMAINING.iter().filter(|known| !found.iter().any(|found| is_same(found, known)));
    let gone: Vec<_> = gone.collect();
    assert!(gone.is_empty(), "no longer cycles; remove them from remaining.rs: {gone:#?}");
}

fn doctored(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let sources: Vec<Source> =
        files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    cycles(&sources)
}

const ITEM: &str = "pub struct Item;\n";

#[test]
fn doctored_cycle_is_found() {
    let back = |text: &str| format!("use crate::b::Item as B;\n{ITEM}{text}");
    let cyclic = [
        "use crate::a::Item;",
        "use crate::{other, a::{Item, Item as Twice}};",
        "use super::a::Item;",
        "fn f() { let item = crate::a::Item; }",
        "use crate::a;\nfn f(item: &a::Item) {}",
        "use crate::Item;",
        "mod inner { use super::super::a::Item; }",
        "mod inner {\n    fn f(item: crate::Exported) {}\n}",
        "use crate::a;\nfn a() { a::f() }",
        "fn f(item: crate::a::MadeByMacro) {}",
    ];
    for text in cyclic {
        let lib = "mod a; mod b;\npub use a::{Item, Item as Exported};";
        let text = format!("{ITEM}{text}");
        let found = doctored(&[("a.rs", &back("")), ("b.rs", &text), ("lib.rs", lib)]);
        assert_eq!(found, [["a.rs", "b.rs"]], "{text}");
    }
    let long = [
        ("a/mod.rs", "mod b;\npub(crate) use b::Item;"),
        ("a/b.rs", "use crate::c::Item as C; pub(crate) struct Item;"),
        ("c.rs", "pub(crate) struct Item(crate::d::Item);"),
        ("d.rs", "use crate::a::Item as A; pub(crate) struct Item;"),
    ];
    assert_eq!(doctored(&long), [["a/b.rs", "c.rs", "d.rs"]], "through a re-export");
    let parent = [
        ("a.rs", "mod child;\nuse child::Item as C; pub(crate) struct Item;"),
        ("a/child.rs", "use super::Item as A; pub(super) struct Item;"),
    ];
    assert_eq!(doctored(&parent), [["a.rs", "a/child.rs"]], "parent and child");
    let used = [
        ("a.rs", "mod child;\npub use child::Item as C; pub struct Item(C);"),
        ("a/child.rs", "use super::Item as A; pub struct Item;"),
    ];
    assert_eq!(doctored(&used), [["a.rs", "a/child.rs"]], "a re-export that is used");
}

#[test]
fn harmless_imports_form_no_cycle() {
    let harmless = [
        "// use crate::a::Item;",
        "/// See [`Item`](crate::a::Item).",
        "const TEXT: &str = \"crate::a::Item\"; const RAW: &str = r#\"crate::a::Item\"#;",
        "#[cfg(test)]\nmod tests {\n    use crate::a::Item;\n}",
        "use a::Item as Foreign;",
        "mod inner {\n    pub struct Item;\n}\nuse inner::Item as I;",
    ];
    for text in harmless {
        let first = format!("use crate::b::Item as B;\n{ITEM}");
        let second = format!("{ITEM}{text}\n");
        assert!(doctored(&[("a.rs", &first), ("b.rs", &second)]).is_empty(), "{text}");
    }
    let facade = [
        ("a/mod.rs", "mod child;\npub use child::Item as C; pub struct Item;"),
        ("a/child.rs", "use super::Item as A; pub struct Item;"),
    ];
    assert!(doctored(&facade).is_empty(), "a re-export alone");
}

#[test]
fn crates_are_separated_by_their_roots() {
    let files = ["src/lib.rs", "src/a.rs", "src/bin/tool/main.rs", "src/bin/tool/a.rs", "b/c.rs"];
    let sources: Vec<Source> =
        files.iter().map(|file| ((*file).to_owned(), String::new())).collect();
    let crates = crates(&sources);
    let names = |root: &str| crates[root].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(crates.len(), 2);
    assert_eq!(names("src"), ["lib.rs", "a.rs"]);
    assert_eq!(names("src/bin/tool"), ["main.rs", "a.rs"]);
}
