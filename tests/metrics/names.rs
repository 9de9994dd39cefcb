//! `docs/METRICS.md` lists the metrics that the code has.

use std::{collections::BTreeSet, fs};

use highwater::{Wal, storage::MemoryStorage};
use metrics_util::MetricKind;

use crate::with_recorder;

/// The kind, the unit and the name of a metric.
pub(crate) type Named = (String, String, String);

/// Returns the metrics that a log registers.
pub(crate) fn registered() -> BTreeSet<Named> {
    with_recorder(async |recorded| {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let _slot = wal.slot("consumer").await.unwrap();
        wal.publish_metrics();
        let of_slot = recorded.take_slot("memory", "consumer");
        wal.close().await.unwrap();
        let metrics = recorded.take("memory").into_iter().chain(of_slot);
        let named = metrics.map(|(name, metric)| {
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            assert!(!metric.description.is_empty(), "{name}");
            (name, kind.to_owned(), metric.unit)
        });
        named.collect()
    })
}

/// Returns the rows of a table that begin with a name of a metric.
fn documented(page: &str) -> BTreeSet<Named> {
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `highwater_")?.split('|').map(str::trim);
        let name = format!("highwater_{}", cells.next()?.trim_end_matches('`'));
        Some((name, cells.next()?.to_owned(), cells.next()?.to_owned()))
    });
    rows.collect()
}

#[test]
fn page_lists_each_metric_with_kind_and_unit() {
    let page = fs::read_to_string("docs/METRICS.md").unwrap();
    assert_eq!(documented(&page), registered());
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    for (name, kind, unit) in registered() {
        let is_word = |character: char| character.is_ascii_lowercase() || character == '_';
        assert!(name.starts_with("highwater_") && name.chars().all(is_word), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        let base = name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_bytes"), unit == "bytes", "{name}: {unit}");
        assert_eq!(base.ends_with("_seconds"), unit == "seconds", "{name}: {unit}");
    }
}

#[test]
fn doctored_page_is_detected() {
    let page = fs::read_to_string("docs/METRICS.md").unwrap();
    for (before, after) in [
        ("| `highwater_flush_seconds` |", "| `highwater_fsync_seconds` |"),
        ("| `highwater_records_total` | counter |", "| `highwater_records_total` | gauge |"),
        ("| gauge | bytes |", "| gauge | count |"),
    ] {
        assert!(page.contains(before), "{before}");
        assert_ne!(documented(&page.replace(before, after)), registered(), "{before}");
    }
}
