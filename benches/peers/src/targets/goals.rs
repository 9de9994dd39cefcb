//! The list of the targets.

use super::target::{
    Against::{self, BestOf, BestPeer, FlushTime, Limit, Nothing, One},
    Bar::{self, AtLeast, AtMost, InEveryRound, Stretch},
    Target,
};
use crate::outcome::Outcome;

/// The contenders with group commit.
const GROUP_COMMIT: &[&str] = &["okaywal", "raft-engine", "raft-log", "raft-log-0", "rocksdb"];

const fn target(work: &'static str, against: Against, bar: Bar) -> Target {
    Target { work, ours: "highwater", against, against_work: None, by: rate, bar }
}

const fn in_place(target: Target) -> Target {
    Target { ours: "highwater-in-place", ..target }
}

const fn current_thread(target: Target) -> Target {
    Target { ours: "highwater-current-thread", ..target }
}

fn rate(outcome: &Outcome) -> Option<f64> {
    Some(outcome.per_second())
}

fn bytes_rate(outcome: &Outcome) -> Option<f64> {
    Some(outcome.mib_per_second())
}

pub fn all() -> Vec<Target> {
    let mut all = commits_of_one_task();
    all.extend(commits_together());
    all.extend(delayed());
    all.extend(appends());
    all.extend(reads());
    all.extend(churn());
    all
}

fn commits_of_one_task() -> Vec<Target> {
    let against = |against, bar| target("commit/1", against, bar);
    vec![
        against(BestPeer, AtLeast(0.95)),
        against(BestPeer, Stretch(1.0)),
        against(One("raw-zeroed"), AtLeast(0.8)),
        current_thread(against(BestPeer, AtLeast(0.95))),
        current_thread(against(BestPeer, Stretch(1.0))),
        current_thread(against(One("raw-zeroed"), AtLeast(0.8))),
        in_place(against(BestPeer, AtLeast(1.0))),
        in_place(against(One("raw-zeroed"), AtLeast(0.9))),
    ]
}

fn commits_together() -> Vec<Target> {
    vec![
        target("commit/8", Limit, AtLeast(0.75)),
        target("commit/64", Limit, AtLeast(0.75)),
        target("commit/256", Limit, AtLeast(0.5)),
        target("commit/1024", Limit, AtLeast(0.4)),
        Target {
            by: |outcome| Some(outcome.cpu_us_each()),
            ..target("commit/1024", Nothing("µs of CPU time each"), AtMost(0.7))
        },
        target("commit/64", FlushTime, AtMost(6.0)),
        target("commit/256", FlushTime, AtMost(12.0)),
        target("commit/1024", FlushTime, AtMost(15.0)),
        target("commit/8", One("wal-db"), AtLeast(1.5)),
        target("commit/64", One("wal-db"), AtLeast(4.5)),
        target("commit/256", One("wal-db"), AtLeast(15.0)),
        target("commit/8", BestOf(GROUP_COMMIT), AtLeast(1.25)),
        target("commit/64", BestOf(GROUP_COMMIT), AtLeast(1.7)),
        target("commit/64", BestOf(GROUP_COMMIT), Stretch(2.5)),
        target("commit/256", BestOf(GROUP_COMMIT), AtLeast(5.0)),
        target("commit/1024", BestOf(GROUP_COMMIT), Stretch(8.0)),
    ]
}

fn delayed() -> impl Iterator<Item = Target> {
    ["commit/1", "commit/8", "commit/64", "commit/256", "commit/1024"]
        .into_iter()
        .map(|work| Target { ours: "highwater-1ms", ..target(work, Limit, AtLeast(0.9)) })
}

fn appends() -> Vec<Target> {
    // wal-db is fastest with 8 threads.
    let append =
        |work, bar| Target { against_work: Some("append/8"), ..target(work, One("wal-db"), bar) };
    vec![
        in_place(target("append/1", One("wal-db"), AtLeast(1.0))),
        target("append/1", One("spawn-blocking"), InEveryRound(1.2)),
        append("append/64", AtLeast(1.0)),
        append("append/1024", AtLeast(1.0)),
        in_place(append("append/64", AtLeast(1.2))),
        in_place(append("append/64", Stretch(2.0))),
        in_place(append("append/1024", AtLeast(1.2))),
        in_place(append("append/1024", Stretch(2.0))),
        target("enqueue/256", One("wal-db"), AtLeast(0.95)),
        target("enqueue/256", One("wal-db"), Stretch(2.0)),
        target("enqueue/65536", One("raw-zeroed"), AtLeast(0.85)),
    ]
}

fn reads() -> Vec<Target> {
    vec![
        Target { by: bytes_rate, ..target("replay/256", One("raw-zeroed"), AtLeast(0.5)) },
        target("replay/256", One("wal-db"), AtLeast(10.0)),
        Target { by: bytes_rate, ..target("replay/4096", One("raw-zeroed"), AtLeast(0.6)) },
        Target {
            against_work: Some("open/1MiB"),
            by: |outcome| Some(outcome.seconds),
            ..target("open/1GiB", One("highwater"), AtMost(1.5))
        },
    ]
}

fn churn() -> impl Iterator<Item = Target> {
    ["churn/256", "churn/4096"].into_iter().flat_map(|work| {
        ["okaywal", "raft-engine"].map(|peer| Target {
            by: |outcome| outcome.churned?.steady,
            ..target(work, One(peer), AtMost(1.3))
        })
    })
}
