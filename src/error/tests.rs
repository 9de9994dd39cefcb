use std::{error::Error as _, io, sync::Arc};

use crate::error::{ClosedBy, Error, listed};

/// Returns the text that a printer of error chains prints.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

const CAUSE: &str = "the device is on fire";

fn with_causes() -> Vec<Error> {
    let source = || Arc::new(io::Error::other(CAUSE));
    let path = "/data/log/1.wal";
    vec![
        Error::io("writing", path, Some(4096), io::Error::other(CAUSE)),
        Error::NoSpace {
            directory: String::new(),
            segment: path.to_owned(),
            bytes: 1,
            source: source(),
        },
        Error::io("writing", path, None, io::Error::other(CAUSE)).into_poison(),
        Error::NoSpace {
            directory: "logs".to_owned(),
            segment: path.to_owned(),
            bytes: 1,
            source: source(),
        }
        .into_poison(),
    ]
}

#[test]
fn error_chain_prints_each_cause_once() {
    for error in with_causes() {
        assert_eq!(error.to_string().matches(CAUSE).count(), 0, "{error}");
        assert!(error.source().is_some(), "{error:?}");
        let whole = format!("{error:#}");
        assert_eq!(whole.matches(CAUSE).count(), 1, "{whole}");
        assert_eq!(whole, chain(&error));
        let converted = io::Error::from(error);
        assert_eq!(chain(&converted), whole);
        assert_eq!(format!("{converted:#}"), whole);
    }
}

#[test]
fn error_without_cause_prints_the_same_in_both_forms() {
    for error in [Error::Full, Error::Closed { by: ClosedBy::Close }] {
        assert_eq!(error.to_string(), format!("{error:#}"));
        assert!(error.source().is_none());
    }
}

#[test]
fn names_above_the_limit_are_counted() {
    assert_eq!(listed(&["a"]), "`a`");
    assert_eq!(listed(&["\u{1b}[2J"]), "`\\u{1b}[2J`");
    assert_eq!(listed(&["a", "b"]), "`a` and `b`");
    assert_eq!(listed(&["a", "b", "c"]), "`a`, `b` and `c`");
    assert_eq!(listed(&["a"; 6]), "`a`, `a`, `a`, `a`, `a` and 1 other");
    assert_eq!(listed(&["a"; 33]), "`a`, `a`, `a`, `a`, `a` and 28 others");
}
