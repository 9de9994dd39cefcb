//! The performance targets, and whether a run meets them.

use std::fmt::Write;

use crate::{
    outcome::Outcome,
    registry::{self, Role},
    rounds::Results,
    table::spread,
};

struct Target {
    work: &'static str,
    ours: &'static str,
    against: Against,
    /// The work of the other side, if it differs.
    against_work: Option<&'static str>,
    by: fn(&Outcome) -> f64,
    bar: Bar,
}

enum Against {
    One(&'static str),
    /// The best peer of each round, without contenders that do not sync.
    BestPeer,
    /// The best of these contenders in each round, without contenders that do not sync.
    BestOf(&'static [&'static str]),
}

#[derive(Clone, Copy)]
enum Bar {
    AtLeast(f64),
    AtMost(f64),
    Stretch(f64),
}

/// The contenders with group commit.
const GROUP_COMMIT: &[&str] = &["okaywal", "raft-engine", "raft-log", "raft-log-0", "rocksdb"];

const fn target(work: &'static str, against: Against, bar: Bar) -> Target {
    Target { work, ours: "highwater", against, against_work: None, by: Outcome::per_second, bar }
}

fn targets() -> Vec<Target> {
    use Against::{BestOf, BestPeer, One};
    use Bar::{AtLeast, AtMost, Stretch};
    let append =
        |work, bar| Target { against_work: Some("append/8"), ..target(work, One("wal-db"), bar) };
    let in_place = |target| Target { ours: "highwater-in-place", ..target };
    vec![
        target("commit/1", One("wal-db"), AtLeast(1.2)),
        target("commit/1", BestPeer, AtLeast(0.9)),
        target("commit/1", One("raw-zeroed"), AtLeast(0.75)),
        in_place(target("commit/1", One("wal-db"), AtLeast(1.2))),
        in_place(target("commit/1", BestPeer, AtLeast(0.9))),
        in_place(target("commit/1", One("raw-zeroed"), AtLeast(0.75))),
        target("commit/8", One("wal-db"), AtLeast(1.5)),
        target("commit/64", One("wal-db"), AtLeast(4.5)),
        target("commit/256", One("wal-db"), AtLeast(15.0)),
        target("commit/8", BestOf(GROUP_COMMIT), AtLeast(1.25)),
        target("commit/64", BestOf(GROUP_COMMIT), AtLeast(1.7)),
        target("commit/64", BestOf(GROUP_COMMIT), Stretch(2.5)),
        target("commit/256", BestOf(GROUP_COMMIT), AtLeast(5.0)),
        target("commit/1024", BestOf(GROUP_COMMIT), Stretch(8.0)),
        append("append/64", AtLeast(1.0)),
        append("append/1024", AtLeast(1.0)),
        in_place(append("append/64", AtLeast(1.2))),
        in_place(append("append/64", Stretch(2.0))),
        in_place(append("append/1024", AtLeast(1.2))),
        in_place(append("append/1024", Stretch(2.0))),
        in_place(target("append/1", One("wal-db"), AtLeast(0.8))),
        target("append/1", One("spawn-blocking"), AtLeast(1.0)),
        target("enqueue/256", One("wal-db"), AtLeast(0.95)),
        target("enqueue/256", One("wal-db"), Stretch(2.0)),
        target("enqueue/65536", One("raw-zeroed"), AtLeast(0.85)),
        target("replay/256", One("wal-db"), AtLeast(5.0)),
        Target {
            by: Outcome::mib_per_second,
            ..target("replay/4096", One("raw-zeroed"), AtLeast(0.6))
        },
        Target {
            against_work: Some("open/1MiB"),
            by: |outcome| outcome.seconds,
            ..target("open/1GiB", One("highwater"), AtMost(2.0))
        },
    ]
}

/// Returns the ratio of each round in which both sides have an outcome.
fn ratios(target: &Target, results: &Results) -> Vec<f64> {
    let under_work = target.against_work.unwrap_or(target.work);
    let others: Vec<&str> = match target.against {
        Against::One(name) => vec![name],
        Against::BestOf(names) => names.to_vec(),
        Against::BestPeer => registry::ALL
            .iter()
            .filter(|contender| contender.role == Role::Peer)
            .map(|contender| contender.name)
            .collect(),
    };
    let is_single = matches!(target.against, Against::One(_));
    let Some(over) = results.row(target.work, target.ours) else { return Vec::new() };
    let rounds = over.outcomes.iter().enumerate();
    rounds
        .filter_map(|(round, outcome)| {
            let ours = (target.by)(outcome.as_ref()?);
            let theirs = others
                .iter()
                .filter(|name| is_single || !results.unsynced.iter().any(|other| other == *name))
                .filter_map(|name| {
                    let row = results.row(under_work, name)?;
                    Some((target.by)(row.outcomes.get(round)?.as_ref()?))
                })
                .max_by(f64::total_cmp)?;
            Some(ours / theirs)
        })
        .collect()
}

pub fn markdown(results: &Results) -> String {
    let mut text = String::from(
        "| work | Highwater ÷ | min | median | max | target | |\n|---|---|---:|---:|---:|---|---|\n",
    );
    for target in targets() {
        let Some((min, median, max)) = spread(&ratios(&target, results)) else { continue };
        let (bar, met) = match target.bar {
            Bar::AtLeast(bar) => (format!("≥ {bar}"), median >= bar),
            Bar::AtMost(bar) => (format!("≤ {bar}"), median <= bar),
            Bar::Stretch(bar) => (format!("stretch ≥ {bar}"), median >= bar),
        };
        let mut against = match target.against {
            Against::One(name) => name.to_owned(),
            Against::BestPeer => "the best peer".to_owned(),
            Against::BestOf(_) => "the best with group commit".to_owned(),
        };
        if let Some(work) = target.against_work {
            let _ = write!(against, ", {work}");
        }
        let met = if met { "met" } else { "**missed**" };
        let own = target.ours.strip_prefix("highwater").unwrap_or(target.ours).replace('-', " ");
        let work =
            format!("{}{}", target.work, if own.is_empty() { own } else { format!(",{own}") });
        let _ = writeln!(
            text,
            "| {work} | {against} | {min:.2} | {median:.2} | {max:.2} | {bar} | {met} |"
        );
    }
    text
}
