//! Which works are done, by whom and how often.

use std::time::Duration;

use crate::{
    contenders::{self, Contender},
    work::{Kind, Limits, Work},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Short,
    Long,
}

pub struct Plan {
    pub works: Vec<Work>,
    pub contenders: Vec<&'static Contender>,
    pub rounds: usize,
    pub warm_up: Duration,
    pub measure: Duration,
}

pub fn plan(form: Form) -> Plan {
    let mut works = Vec::new();
    works.extend([1, 8, 64, 256, 1024].map(Work::commit));
    works.extend([1, 8, 64, 1024].map(Work::append));
    works.push(Work::enqueue(256, 256 << 20));
    works.push(Work::enqueue(65_536, 256 << 20));
    works.push(Work::replay(256, 64 << 20));
    works.push(Work::replay(4096, 128 << 20));
    let long = form == Form::Long;
    Plan {
        works,
        contenders: contenders::ALL.iter().collect(),
        rounds: if long { 7 } else { 3 },
        warm_up: Duration::from_millis(if long { 300 } else { 150 }),
        measure: Duration::from_millis(if long { 1500 } else { 500 }),
    }
}

impl Plan {
    pub fn restrict(&mut self, only: &[String], names: &[String]) {
        if !only.is_empty() {
            self.works.retain(|work| only.iter().any(|part| work.name.contains(part)));
        }
        if !names.is_empty() {
            self.contenders.retain(|contender| names.iter().any(|name| name == contender.name));
        }
    }

    /// A work with a fixed amount is measured from end to end.
    pub fn limits(&self, work: &Work) -> Limits {
        let fixed = work.bytes > 0 || work.kind == Kind::Enqueue;
        let warm_up = if fixed { Duration::from_secs(170) } else { self.warm_up };
        Limits { warm_up, measure: self.measure, operations: None }
    }
}
