//! The text of errors.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use crate::operation::Operation;

/// The maximum number of names in an error.
const NAMES_MAX: usize = 5;

/// Lists the first names, quoted, and the number of others.
pub(crate) fn listed(names: &[&str]) -> String {
    let shown: Vec<_> =
        names.iter().take(NAMES_MAX).map(|name| format!("`{}`", name.escape_debug())).collect();
    match (shown.split_last(), names.len().saturating_sub(NAMES_MAX)) {
        (Some((last, [])), 0) => last.clone(),
        (Some((last, before)), 0) => format!("{} and {last}", before.join(", ")),
        (_, 1) => format!("{} and 1 other", shown.join(", ")),
        (_, others) => format!("{} and {others} others", shown.join(", ")),
    }
}

type Written = fmt::Result;
type Writer<'a, 'b> = &'a mut fmt::Formatter<'b>;

/// Writes the chain of causes, if the error is printed with `{:#}`.
pub(crate) fn write_cause(cause: &dyn std::error::Error, f: Writer<'_, '_>) -> Written {
    let mut next = f.alternate().then_some(cause);
    while let Some(cause) = next {
        write!(f, ": {cause}")?;
        next = cause.source();
    }
    Ok(())
}

/// Returns the text before a file's name.
pub(super) fn prefix(directory: &str) -> String {
    if directory.is_empty() { String::new() } else { format!("{directory}: ") }
}

pub(super) fn write_io(
    operation: &&'static str,
    directory: &str,
    path: &String,
    offset: &Option<u64>,
    source: &Arc<io::Error>,
    f: Writer<'_, '_>,
) -> Written {
    match directory {
        "" => write!(f, "{operation} {path}")?,
        directory => write!(f, "{operation} {}", Path::new(directory).join(path).display())?,
    }
    if let Some(offset) = offset {
        write!(f, ", offset {offset}")?;
    }
    write_cause(source.as_ref(), f)
}

pub(super) fn write_no_space(
    directory: &str,
    segment: &String,
    bytes: &u64,
    source: &Arc<io::Error>,
    f: Writer<'_, '_>,
) -> Written {
    let prefix = prefix(directory);
    write!(
        f,
        "{prefix}no space for the next segment {segment} ({bytes} bytes); free some and retry"
    )?;
    write_cause(source.as_ref(), f)
}

pub(super) fn write_over_budget(
    directory: &str,
    budget_bytes: &u64,
    used_bytes: &u64,
    bytes: &u64,
    holder: &str,
    f: Writer<'_, '_>,
) -> Written {
    let prefix = prefix(directory);
    write!(
        f,
        "{prefix}the next segment of {bytes} bytes would exceed the budget, of which {used_bytes} of \
         {budget_bytes} bytes are used; "
    )?;
    match holder {
        "" => write!(f, "truncate the log's beginning, or raise the budget"),
        holder => write!(f, "{holder} holds the oldest segment: move it on, or raise the budget"),
    }
}

pub(super) fn write_poisoned(cause: &Arc<impl std::error::Error>, f: Writer<'_, '_>) -> Written {
    write!(f, "the log stopped after a failure; reopen it to see which records survived")?;
    write_cause(cause.as_ref(), f)
}

pub(super) fn write_stalled(
    directory: &str,
    operation: &Operation,
    file: &String,
    time: &Duration,
    f: Writer<'_, '_>,
) -> Written {
    let prefix = prefix(directory);
    write!(
        f,
        "{prefix}{operation} {file} has not returned for {time:.1?}; check the disk, then try again"
    )
}
