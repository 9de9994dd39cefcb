//! Counts the instructions per operation of the hot paths with callgrind, and compares them with a
//! record.
//!
//! `cargo run --profile instructions -p highwater-instructions -- check` compares with
//! `recorded.toml`, `-- record` rewrites it, and `-- table` prints it. Names of works after the
//! command select works. `--recorded FILE` uses another file.
//!
//! Each work runs twice, in separate processes: N operations and 2 N operations. The difference is
//! the cost of N operations, so starting, opening and closing cancel out. Neither the kernel's
//! instructions nor waiting count. So the guard finds additional work, but no cache misses.
//!
//! The exit code is 0 if all counts are within their tolerance, 1 if a count is not, and 2 if
//! nothing could be compared.

mod callgrind;
mod compare;
mod environment;
mod failure;
mod gated;
mod load;
mod recorded;
mod works;

use std::{path::PathBuf, process::ExitCode};

use compare::Verdict;
use environment::Environment;
use failure::Failure;
use recorded::{Entry, Recorded};
use works::{WORKS, Work};

const USAGE: &str = "usage: (check | record | table) [--recorded FILE] [WORK…]";

/// Two runs of an exact work must agree within this percentage.
const EXACT_PERCENT: f64 = 0.1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The child process, which callgrind runs.
    if let [command, name, turns] = &arguments[..]
        && command == callgrind::CHILD
    {
        return exit_code(works::run(name, turns).map(|()| true));
    }
    exit_code(Request::parse(&arguments).and_then(|request| request.run()))
}

fn exit_code(outcome: Result<bool, Failure>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(2)
        }
    }
}

/// The parsed command line.
struct Request {
    command: String,
    file: PathBuf,
    names: Vec<String>,
}

impl Request {
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
                return Err(format!(
                    "there is no work {argument}; the works are {}",
                    known.join(" ")
                )
                .into());
            }
        }
        Ok(Request { command, file, names })
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
                "\nMore work than recorded. If it is intended, give the reason in the commit and run `record`."
            );
        }
        Ok(is_fine)
    }

    /// Measures each work twice, and does not record an exact work whose two results differ.
    fn record(&self) -> Result<bool, Failure> {
        let here = Environment::here()?;
        let old = Recorded::read(&self.file).ok();
        // Works that were not selected keep their counts if the environment is the same.
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
                println!("    not recorded, because two runs must agree within {EXACT_PERCENT} %");
                is_fine = false;
                continue;
            }
            works.insert(work.name.to_owned(), Entry::of(work, first.midpoint(second)));
        }
        Recorded { environment: here, works }.write(&self.file)?;
        Ok(is_fine)
    }
}
