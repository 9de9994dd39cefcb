//! Selects the works and contenders of a run, and the number of rounds.

use std::time::Duration;

use crate::{
    registry::{self, Contender},
    work::{Kind, Limits, Runtime, Work},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The works that have targets.
    Short,
    /// All works.
    Long,
    /// Only Highwater, by number of tasks, record size, ring size and log size, to find steps in
    /// the curves.
    Curves,
    /// Commits on a storage with a delayed flush.
    Delayed,
    /// Logs that drop old records.
    Churn,
    /// A few operations of each contender, which are not measured: see [`crate::smoke`].
    Smoke,
}

impl Form {
    /// Returns the folder for the form's page, if it has its own.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Form::Short | Form::Long | Form::Smoke => None,
            Form::Curves => Some("curves"),
            Form::Delayed => Some("delayed"),
            Form::Churn => Some("churn"),
        }
    }
}

pub struct Plan {
    pub works: Vec<Work>,
    pub contenders: Vec<&'static Contender>,
    /// The most rounds; `time` may end the run earlier.
    pub rounds: usize,
    /// No round begins that would end after this time, estimated from the rounds before it.
    pub time: Option<Duration>,
    pub warm_up: Duration,
    pub measure: Duration,
}

/// The time limit of a run that drops old records.
const CHURN_TIME_MAX: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Returns the plan of a form. `churned_bytes` are the user bytes of a run of [`Form::Churn`].
pub fn plan(form: Form, churned_bytes: u64) -> Plan {
    let (rounds, warm_up_ms, measure_ms) = match form {
        Form::Short | Form::Curves | Form::Smoke => (3, 120, 400),
        Form::Long => (7, 300, 1500),
        Form::Delayed => (5, 200, 1000),
        // A run has a fixed amount of bytes.
        Form::Churn => (3, 0, 0),
    };
    Plan {
        works: match form {
            Form::Short => targeted(),
            Form::Long => all(),
            Form::Curves => curves(),
            Form::Delayed => COMMIT_TASKS.map(Work::commit).into(),
            Form::Churn => [256, 4096].map(|record| Work::churn(record, churned_bytes)).into(),
            Form::Smoke => smoke(),
        },
        contenders: match form {
            Form::Short | Form::Long | Form::Churn => registry::ALL.iter().collect(),
            Form::Curves => registry::ALL
                .iter()
                .filter(|c| c.is_highwater() && c.name != registry::CURRENT_THREAD)
                .collect(),
            Form::Delayed => registry::DELAYED.iter().collect(),
            Form::Smoke => registry::ALL.iter().chain(registry::DELAYED).collect(),
        },
        rounds,
        time: (!matches!(form, Form::Long | Form::Churn)).then_some(Duration::from_secs(9 * 60)),
        warm_up: Duration::from_millis(warm_up_ms),
        measure: Duration::from_millis(measure_ms),
    }
}

/// The numbers of tasks for which commits have targets.
const COMMIT_TASKS: [usize; 5] = [1, 8, 64, 256, 1024];

fn targeted() -> Vec<Work> {
    let mut works = Vec::new();
    works.extend(COMMIT_TASKS.map(Work::commit));
    works.extend([1, 8, 64, 1024].map(Work::append));
    works.extend([256, 65_536].map(|record| Work::enqueue(record, 128 * MIB)));
    works.push(Work::replay(256, 32 * MIB));
    works.push(Work::replay(4096, 64 * MIB));
    works.extend([MIB, GIB].map(Work::open));
    works.push(Work::memory());
    works
}

fn curves() -> Vec<Work> {
    let powers = |range: std::ops::Range<u32>| range.map(|power| 1 << power);
    let mut works = Vec::new();
    works.extend(powers(0..13).map(Work::commit));
    works.extend(powers(0..13).map(Work::append));
    works.extend((4..21).map(|power| Work::commit_of(1 << power)));
    works.extend((12..25).step_by(2).map(|power| Work::ring(1 << power)));
    works.extend((20..33).step_by(2).map(|power| Work::into_log(1 << power)));
    works
}

fn all() -> Vec<Work> {
    let mut works = Vec::new();
    works.extend([1, 2, 8, 64, 256, 1024, 10_000].map(Work::commit));
    works.extend([1, 2, 8, 64, 256, 1024, 10_000].map(Work::append));
    let sizes = [16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1 << 20, 16 << 20];
    works.extend(sizes.map(|record| Work::enqueue(record, 256 * MIB)));
    works.extend(sizes.map(Work::commit_of));
    works.push(Work::mixture(Kind::Commit, "commit"));
    works.push(Work::mixture(Kind::Append, "append"));
    works.extend([1, 16, 256].map(Work::batch));
    works.push(Work::mixed(16));
    works.extend([1000, 5000, 20_000, 50_000].map(|rate| Work::open_loop(rate, 1)));
    works.push(Work::open_loop(10_000, 1000));
    works.extend([1, 64].map(Work::follow));
    works.extend([16, 256].map(|record| Work::replay(record, 64 * MIB)));
    works.extend([4096, 65_536].map(|record| Work::replay(record, 128 * MIB)));
    works.extend([MIB, GIB].map(Work::open));
    works.extend([MIB, 64 * MIB].map(Work::recover));
    works.push(Work::memory());
    for runtime in [Runtime::CurrentThread, Runtime::Multi(1), Runtime::Multi(4)] {
        works.extend([1, 64, 1024].map(|tasks| Work::commit(tasks).on(runtime)));
        works.extend([1, 64, 1024].map(|tasks| Work::append(tasks).on(runtime)));
    }
    works
}

impl Plan {
    pub fn restrict(&mut self, only: &[String], names: &[String]) {
        if !only.is_empty() {
            self.works.retain(|work| only.iter().any(|part| matches_name(&work.name, part)));
        }
        if !names.is_empty() {
            // Contenders that are in no form with the others can still be named.
            let is_new = |new: &&Contender| self.contenders.iter().all(|c| c.name != new.name);
            let new: Vec<_> = registry::DELAYED.iter().filter(is_new).collect();
            self.contenders.extend(new);
            self.contenders.retain(|contender| names.iter().any(|name| name == contender.name));
        }
    }

    /// Returns the contenders that do a work. Only the two in the target do it with 1 GiB, because
    /// some others need minutes to write such a log.
    pub fn contenders_for(&self, work: &Work) -> Vec<&'static Contender> {
        let is_large = matches!(work.kind, Kind::Open | Kind::Recover) && work.bytes >= GIB;
        self.contenders
            .iter()
            .filter(|contender| contender.can(work))
            .filter(|contender| !is_large || contender.is_highwater() || contender.name == "wal-db")
            .copied()
            .collect()
    }

    pub fn limits(&self, work: &Work) -> Limits {
        let fixed = work.bytes > 0;
        // A time limit for contenders that are too slow to do all of it; their rate is still valid.
        let measure = match work.kind {
            Kind::Churn { .. } => CHURN_TIME_MAX,
            _ if fixed => self.measure * 5,
            _ => self.measure,
        };
        Limits { warm_up: self.warm_up, measure, operations: None, fixed }
    }
}

/// Returns whether a name contains `part`, or equals it if it starts with `=`: `=commit/1` does not
/// match `commit/1024`.
fn matches_name(name: &str, part: &str) -> bool {
    part.strip_prefix('=').map_or_else(|| name.contains(part), |whole| name == whole)
}
/// Returns one small work of each kind.
fn smoke() -> Vec<Work> {
    vec![
        Work::commit(4),
        Work::append(4),
        Work::batch(8),
        Work::enqueue(256, 64 << 10),
        Work::replay(256, 64 << 10),
        Work::recover(64 << 10),
        Work::open_loop(500, 10),
        Work::follow(2),
        Work::churn(256, 1 << 20),
    ]
}
