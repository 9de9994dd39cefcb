//! The dashboard and the alert rules use metrics that exist.

use std::{collections::BTreeSet, fs};

use crate::names::registered;

/// Returns the words of a text that look like the name of a metric, without the ending that
/// Prometheus adds to a histogram.
fn used(text: &str) -> BTreeSet<String> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = text.split(|character| !is_word(character));
    let names = words.filter(|word| word.starts_with("highwater_")).map(|word| {
        let endings = ["_bucket", "_count", "_sum"];
        let base = endings.iter().find_map(|ending| word.strip_suffix(ending));
        base.unwrap_or(word).to_owned()
    });
    names.collect()
}

/// Returns the used metrics that no log has.
fn unknown(text: &str) -> Vec<String> {
    let known: BTreeSet<_> = registered().into_iter().map(|(name, ..)| name).collect();
    used(text).difference(&known).cloned().collect()
}

/// Returns uses of a histogram without an ending: Prometheus has no such series.
fn bare_histograms(text: &str) -> Vec<String> {
    let histograms = registered().into_iter().filter(|(_, kind, _)| kind == "histogram");
    let is_bare = |name: &String| {
        let mut uses = text.split(name.as_str()).skip(1);
        uses.any(|rest| !["_bucket", "_count", "_sum"].iter().any(|it| rest.starts_with(it)))
    };
    histograms.map(|(name, ..)| name).filter(is_bare).collect()
}

const DASHBOARD: &str = "docs/dashboards/highwater.json";
const ALERTS: &str = "docs/dashboards/alerts.yml";

#[test]
fn dashboard_uses_metrics_that_exist() {
    let text = fs::read_to_string(DASHBOARD).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8, "{}", panels.len());
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id is used twice: {panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(!used(query).is_empty(), "{query}");
            assert_eq!(unknown(query), [""; 0], "{query}");
            assert_eq!(bare_histograms(query), [""; 0], "{query}");
            assert!(query.contains("log=~\"$log\""), "{query}: not of the chosen log");
        }
    }
    assert!(used(&text).len() >= 12, "{:?}", used(&text));
}

#[test]
fn alerts_use_metrics_that_exist() {
    let text = fs::read_to_string(ALERTS).unwrap();
    assert_eq!(unknown(&text), [""; 0]);
    assert_eq!(bare_histograms(&text), [""; 0]);
    let rules: Vec<_> = text.split("- alert: ").skip(1).collect();
    assert!(rules.len() >= 6, "{}", rules.len());
    for rule in rules {
        for key in ["expr:", "for:", "severity:", "summary:", "description:"] {
            assert!(rule.contains(key), "{key} is missing: {rule}");
        }
        assert!(!used(rule).is_empty(), "{rule}");
    }
    assert!(!text.contains('\t'), "YAML has no tabs");
}

#[test]
fn doctored_dashboard_is_detected() {
    assert_eq!(unknown("rate(highwater_fsyncs_total[1m])"), ["highwater_fsyncs_total"]);
    assert_eq!(unknown("highwater_flush_seconds_bucket"), [""; 0]);
    assert_eq!(bare_histograms("highwater_flush_seconds > 1"), ["highwater_flush_seconds"]);
}
