//! A target: a work, the other side of its comparison, and the bar.

use std::fmt::Write;

use crate::{
    efficiency,
    outcome::Outcome,
    registry::{self, Role},
    rounds::{Results, Row},
};

pub struct Target {
    pub work: &'static str,
    pub ours: &'static str,
    pub against: Against,
    /// The work of the other side, if it differs.
    pub against_work: Option<&'static str>,
    /// The value to compare. [`Against::Limit`] and [`Against::FlushTime`] do not use it.
    pub by: fn(&Outcome) -> Option<f64>,
    pub bar: Bar,
}

/// The other side of a comparison within one round.
pub enum Against {
    /// The value is compared with the bar as it is. It has this unit.
    Nothing(&'static str),
    /// The figure is E, the rate of commits ÷ the limit that flushes allow.
    Limit,
    /// The figure is the 99.9th percentile ÷ F, the time of a flush.
    FlushTime,
    One(&'static str),
    /// The best peer of each round, without contenders that do not sync.
    BestPeer,
    /// The best of these contenders in each round, without contenders that do not sync.
    BestOf(&'static [&'static str]),
}

#[derive(Clone, Copy)]
pub enum Bar {
    /// For the median of the rounds.
    AtLeast(f64),
    /// For the median of the rounds.
    AtMost(f64),
    /// For the minimum of the rounds.
    InEveryRound(f64),
    /// For the median of the rounds. The target is not required.
    Stretch(f64),
}

impl Bar {
    pub fn text(self) -> String {
        match self {
            Bar::AtLeast(bar) => format!("≥ {bar}"),
            Bar::AtMost(bar) => format!("≤ {bar}"),
            Bar::InEveryRound(bar) => format!("≥ {bar} in every round"),
            Bar::Stretch(bar) => format!("stretch ≥ {bar}"),
        }
    }

    pub fn is_met(self, min: f64, median: f64) -> bool {
        match self {
            Bar::AtLeast(bar) | Bar::Stretch(bar) => median >= bar,
            Bar::AtMost(bar) => median <= bar,
            Bar::InEveryRound(bar) => min >= bar,
        }
    }
}

impl Target {
    /// Returns the figure of each round in which both sides have an outcome.
    pub fn figures(&self, results: &Results) -> Vec<f64> {
        let Some(row) = results.row(self.work, self.ours) else { return Vec::new() };
        match self.against {
            Against::Limit => efficiency::efficiencies(results, row),
            Against::FlushTime => efficiency::tails(results, row),
            Against::Nothing(_) => row.outcomes.iter().flatten().filter_map(self.by).collect(),
            Against::One(name) => self.ratios(results, row, &[name]),
            Against::BestOf(names) => self.ratios(results, row, &synced(names, results)),
            Against::BestPeer => {
                let peers = registry::ALL.iter().filter(|c| c.role == Role::Peer);
                let names: Vec<_> = peers.map(|contender| contender.name).collect();
                self.ratios(results, row, &synced(&names, results))
            }
        }
    }

    /// Returns the ratio to the best of the other contenders for each round.
    fn ratios(&self, results: &Results, row: &Row, others: &[&str]) -> Vec<f64> {
        let under_work = self.against_work.unwrap_or(self.work);
        let rounds = row.outcomes.iter().enumerate();
        rounds
            .filter_map(|(round, outcome)| {
                let ours = (self.by)(outcome.as_ref()?)?;
                let others = others.iter().filter_map(|name| {
                    let row = results.row(under_work, name)?;
                    (self.by)(row.outcomes.get(round)?.as_ref()?)
                });
                Some(ours / others.max_by(f64::total_cmp)?)
            })
            .collect()
    }

    pub fn name(&self) -> String {
        match self.ours.strip_prefix("highwater").unwrap_or(self.ours) {
            "" => self.work.to_owned(),
            form => format!("{},{}", self.work, form.replace('-', " ")),
        }
    }

    pub fn against(&self) -> String {
        let mut text = match self.against {
            Against::Nothing(unit) => format!("– ({unit})"),
            Against::Limit => "the limit (E)".to_owned(),
            Against::FlushTime => "F (p99.9)".to_owned(),
            Against::One(name) => name.to_owned(),
            Against::BestPeer => "the best peer".to_owned(),
            Against::BestOf(_) => "the best with group commit".to_owned(),
        };
        if let Some(work) = self.against_work {
            let _ = write!(text, ", {work}");
        }
        text
    }
}

fn synced<'a>(names: &[&'a str], results: &Results) -> Vec<&'a str> {
    names.iter().filter(|name| !results.unsynced.contains(name)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_for_every_round_needs_the_minimum() {
        assert!(!Bar::InEveryRound(1.2).is_met(1.1, 1.5));
        assert!(Bar::InEveryRound(1.2).is_met(1.2, 1.5));
        assert!(Bar::AtLeast(1.2).is_met(1.1, 1.2));
        assert!(!Bar::AtMost(1.3).is_met(1.0, 1.4));
    }
}
