//! The commands and their help.

use clap::{Parser, Subcommand};

use crate::options::LogOptions;

const EXAMPLES: &str = "\
Examples:
  highwater stat data/log                    a picture of the segments and the marks
  highwater top data/log                     the same live, with rates, slots and disk space
  highwater verify data/log && echo whole    reads every byte; 0 only if the log is whole
  highwater inspect --json data/log | jq .verdict
  highwater dump data/log --from 4096 --to 8192 --as hex
  highwater dump data/log --since 15m        needs the log's option `time_marks`
  highwater tail -f data/log                 committed records, as they come
  highwater repair data/log                  the plan of a repair: the cut, and its copies
  printf 'one\\ntwo\\n' | highwater append data/log
  highwater truncate data/log --before 4096
  highwater export data/log | ssh backup highwater import - data/log
  highwater bench-fsync data

Only `append`, `import`, `repair --apply` and `truncate --apply` change a log or take its lock. The
other commands read a snapshot, also of a log in use.";

/// Inspects, checks, repairs and copies highwater logs.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Describes the log and each segment: header, contents, damage
    #[command(after_help = "Example:\n  highwater inspect data/log")]
    Inspect(LogOptions),
    /// Prints the frames, oldest first, and also the intact ones after damage
    #[command(after_help = crate::dump::EXAMPLES)]
    Dump(crate::dump::DumpOptions),
    /// Prints the last records, and with -f also new ones, until Ctrl-C
    #[command(after_help = crate::tail::EXAMPLES)]
    Tail(crate::tail::TailOptions),
    /// Reads every byte of the log, and reports by its exit status whether it is whole
    #[command(after_help = crate::verify::EXAMPLES)]
    Verify(crate::verify::VerifyOptions),
    /// Plans the repair of a damaged log, or with --apply cuts the log at the damage
    #[command(after_help = crate::repair::EXAMPLES)]
    Repair(crate::repair::RepairOptions),
    /// Draws the segments and the marks
    #[command(after_help = "Example:\n  highwater stat data/log")]
    Stat(LogOptions),
    /// Shows a log in use live: marks, rates, segments, slots, disk space
    #[command(after_help = crate::top::EXAMPLES)]
    Top(crate::top::TopOptions),
    /// Writes the records to a portable stream with checksums
    #[command(after_help = crate::export::EXAMPLES)]
    Export(crate::export::ExportOptions),
    /// Creates a log from an exported stream, or from a log of wal-db 1.x or kaya-wal
    #[command(after_help = crate::import::EXAMPLES)]
    Import(crate::import::ImportOptions),
    /// Appends records from standard input and prints their LSNs when they are durable
    #[command(after_help = crate::append::EXAMPLES)]
    Append(crate::append::AppendOptions),
    /// Plans the removal of records at the start or the end of a log, or with --apply removes them
    #[command(after_help = crate::truncate::EXAMPLES)]
    Truncate(crate::truncate::TruncateOptions),
    /// Measures the time of a flush on the disk of a directory
    #[command(after_help = crate::bench_fsync::EXAMPLES)]
    BenchFsync(crate::bench_fsync::BenchOptions),
    /// Prints a completion script for a shell
    #[command(after_help = "Example:\n  highwater completions bash > \
                            ~/.local/share/bash-completion/completions/highwater")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page of all commands, or of one
    #[command(
        after_help = "Examples:\n  highwater man | man -l -\n  highwater man dump > highwater-dump.1"
    )]
    Man {
        /// Prints the page of this command only
        command: Option<String>,
    },
}
