//! Lists the public API of a crate, one item a line, from the JSON that nightly's rustdoc writes.
//!
//! `.ci/api` compares this list with the record in `api/`.

use std::{
    collections::HashSet,
    env,
    error::Error,
    io::{self, Write},
};

use public_api::Builder;

/// Automatic traits that are left out, because programs rarely depend on them.
const OMITTED: [&str; 5] = [
    "core::marker::Freeze for ",
    "core::marker::StructuralPartialEq for ",
    "core::marker::UnsafeUnpin for ",
    "core::panic::unwind_safe::RefUnwindSafe for ",
    "core::panic::unwind_safe::UnwindSafe for ",
];

/// Returns the items of the JSON file at `path`.
///
/// A derived or automatic implementation is one line, without its methods.
fn list(path: &str) -> public_api::Result<Vec<String>> {
    let written = Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_derived_impls(true)
        .omit_auto_trait_impls(true)
        .build()?;
    let written: HashSet<String> = written.items().map(ToString::to_string).collect();
    let all = Builder::from_rustdoc_json(path).omit_blanket_impls(true).build()?;
    let mut seen = HashSet::new();
    Ok(all
        .items()
        .map(ToString::to_string)
        .filter(|item| written.contains(item) || item.starts_with("impl"))
        .filter(|item| !OMITTED.iter().any(|omitted| item.contains(omitted)))
        .filter(|item| seen.insert(item.clone()))
        .collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("usage: api-list FILE.json")?;
    let mut output = io::stdout().lock();
    for item in list(&path)? {
        writeln!(output, "{item}")?;
    }
    Ok(())
}
