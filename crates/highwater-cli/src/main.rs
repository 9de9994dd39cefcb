//! The command-line tool of Highwater: one module for each command, and shared modules below.
//!
//! Only `append`, `import`, `repair --apply` and `truncate --apply` change a log.

mod append;
mod bench_fsync;
mod cli;
mod describe;
mod dump;
mod exit;
mod export;
mod files;
mod foreign;
mod generate;
mod import;
mod inspect;
mod options;
mod output;
mod progress;
mod records;
mod repair;
mod since;
mod stat;
mod stream;
mod tail;
mod text;
mod top;
mod truncate;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, Command};
use exit::WRONG_USAGE;
use output::Failure;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Replaces clap's status 2, because 2 means that a log is corrupt.
            let status = if error.use_stderr() { WRONG_USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    files::ignore_size_limit_signal();
    let ran = match &arguments.command {
        Command::Inspect(options) => inspect::run(options),
        Command::Dump(options) => dump::run(options),
        Command::Tail(options) => tail::run(options),
        Command::Verify(options) => verify::run(options),
        Command::Repair(options) => repair::run(options),
        Command::Stat(options) => stat::run(options),
        Command::Top(options) => top::run(options),
        Command::Export(options) => export::run(options),
        Command::Import(options) => import::run(options),
        Command::BenchFsync(options) => bench_fsync::run(options),
        Command::Completions { shell } => generate::completions(*shell),
        Command::Append(options) => append::run(options),
        Command::Truncate(options) => truncate::run(options),
        Command::Man { command } => generate::man(command.as_deref()),
    };
    match ran {
        Ok(status) => ExitCode::from(status),
        // The reader of the output closed it early. That is no failure.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            output::note(&failure);
            ExitCode::from(failure.status())
        }
    }
}
