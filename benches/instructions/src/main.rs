//! Instructions per operation of the hot paths, counted by callgrind and held against a record.
//!
//! `cargo run --release --manifest-path benches/instructions/Cargo.toml -- check` compares with
//! `recorded.toml`, `-- record` writes it anew, `-- table` prints it. Names of works behind the
//! command choose some of them; `--recorded FILE` takes another file.
//!
//! Each work runs twice, in processes of their own: N operations and 2 N. The difference is what N
//! cost; starting, opening and closing cancel out. Instructions of the kernel aren't counted, and
//! neither is waiting: this finds more work, not more misses.
//!
//! Ends with 0 if all is within its tolerance, 1 if something isn't, 2 if nothing could be said.

mod callgrind;
mod compare;
mod environment;
mod gated;
mod load;
mod recorded;
mod works;

use std::{path::PathBuf, process::ExitCode};

use compare::Verdict;
use environment::Environment;
use recorded::{Entry, Recorded};
use works::{WORKS, Work};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: (check | record | table) [--recorded FILE] [WORK…]";

/// Two runs of a work agree within this, unless it is marked as one that can't.
const EXACT_PERCENT: f64 = 0.1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The process that callgrind watches.
    if let [command, name, turns] = &arguments[..] {
        if command == callgrind::CHILD {
            return answer(works::run(name, turns).map(|()| true));
        }
    }
    answer(Asked::parse(&arguments).and_then(|asked| asked.run()))
}

fn answer(outcome: Result<bool, Failure>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}

struct Asked {
    command: String,
    file: PathBuf,
    names: Vec<String>,
}

impl Asked {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut rest = arguments.iter().cloned();
        let command = rest.next().ok_or(USAGE)?;
        let mut file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recorded.toml");
        let mut names = Vec::new();
        while let Some(argument) = rest.next() {
            if argument == "--recorded" {
                file = rest.next().ok_or(USAGE)?.into();
            } else if WORKS.iter().any(|work| work.name == argument) {
                names.push(argument);
            } else {
                let known: Vec<_> = WORKS.iter().map(|work| work.name).collect();
                return Err(format!("no work {argument}; there are {}", known.join(" ")).into());
            }
        }
        Ok(Asked { command, file, names })
    }

    fn works(&self) -> impl Iterator<Item = &'static Work> {
        let is_chosen =
            |work: &&Work| self.names.is_empty() || self.names.iter().any(|name| name == work.name);
        WORKS.iter().filter(is_chosen)
    }

    fn run(&self) -> Result<bool, Failure> {
        match &self.command[..] {
            "check" => self.check(),
            "record" => self.record(),
            "table" => {
                print!("{}", compare::table(&Recorded::read(&self.file)?));
                Ok(true)
            }
            _ => Err(USAGE.into()),
        }
    }

    fn check(&self) -> Result<bool, Failure> {
        let recorded = Recorded::read(&self.file)?;
        let here = Environment::here()?;
        let is_same = compare::environments(&recorded.environment, &here)?;
        let mut is_fine = true;
        println!("{}", compare::HEAD);
        for work in self.works() {
            let Some(entry) = recorded.works.get(work.name) else {
                println!("{:<28} not recorded: run `record`", work.name);
                is_fine = false;
                continue;
            };
            let verdict = Verdict::of(entry, callgrind::per_operation(work)?, is_same);
            println!("{}", verdict.line(work.name));
            is_fine &= verdict.is_fine();
        }
        if !is_fine {
            println!(
                "\nMore work than recorded. If it is wanted, say why in the commit and run `record`."
            );
        }
        Ok(is_fine)
    }

    /// Measures each work twice, and refuses to record as exact what doesn't agree with itself.
    fn record(&self) -> Result<bool, Failure> {
        let here = Environment::here()?;
        let old = Recorded::read(&self.file).ok();
        // Works that weren't chosen keep what they have, if it was counted in the same environment.
        let mut works = match &old {
            Some(old) if !self.names.is_empty() && old.environment == here => old.works.clone(),
            _ => Default::default(),
        };
        let mut is_fine = true;
        for work in self.works() {
            let (first, second) =
                (callgrind::per_operation(work)?, callgrind::per_operation(work)?);
            let apart = compare::percent(first.min(second), first.max(second));
            let before = old.as_ref().and_then(|old| old.works.get(work.name));
            println!("{}", compare::recording(work.name, before, first, second));
            if work.is_exact && apart > EXACT_PERCENT {
                println!("    two runs must agree within {EXACT_PERCENT} %: not recorded");
                is_fine = false;
                continue;
            }
            works.insert(work.name.to_owned(), Entry::of(work, first.midpoint(second)));
        }
        Recorded { environment: here, works }.write(&self.file)?;
        Ok(is_fine)
    }
}
