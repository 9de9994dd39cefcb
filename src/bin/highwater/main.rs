//! `highwater`: looks inside logs, and carries them from place to place; only `repair --apply` and
//! `import` change one.

mod arguments;
mod check;
mod dump;
mod export;
mod files;
mod foreign;
mod fsync;
mod generate;
mod import;
mod output;
mod progress;
mod records;
mod repair;
mod report;
mod stat;
mod stream;
mod tail;
mod text;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use output::Failure;

/// As `EX_USAGE` of sysexits.h.
const WRONG_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Not clap's 2, which says here that a log is corrupt.
            let status = if error.use_stderr() { WRONG_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    files::outlive_size_limits();
    let ran = match &arguments.command {
        Command::Inspect(options) => report::run(options),
        Command::Dump(options) => dump::run(options),
        Command::Tail(options) => tail::run(options),
        Command::Verify(options) => check::run(options),
        Command::Repair(options) => repair::run(options),
        Command::Stat(options) => stat::run(options),
        Command::Export(options) => export::run(options),
        Command::Import(options) => import::run(options),
        Command::BenchFsync(options) => fsync::run(options),
        Command::Completions { shell } => generate::completions(*shell),
        Command::Man => generate::man(),
    };
    match ran {
        Ok(status) => ExitCode::from(status),
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("highwater: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
