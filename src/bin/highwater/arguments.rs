//! What may stand on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use highwater::Lsn;

const EXAMPLES: &str = "\
Examples:
  highwater stat data/log                    a picture of the segments and the marks
  highwater verify data/log && echo whole    reads everything; 0 only if all of it is whole
  highwater inspect --json data/log | jq .verdict
  highwater dump data/log --from 4096 --to 8192 --as hex
  highwater tail -f data/log                 what is committed, as it comes
  highwater repair data/log                  what a repair would cut, and where the copies would go
  highwater export data/log | ssh backup highwater import - data/log
  highwater bench-fsync data

Only `repair --apply` and `import` change a log or take its lock: a log in use is read as it stood at
one moment.";

const STATUSES: &str = "\
Exit status:
  0  whole: closed, or ends cleanly without having been closed, or there is no log yet
  1  torn tail: unsynced bytes at the end, which opening cuts and keeps
  2  corrupt: bytes that were durable are wrong or gone
  3  unsupported: intact, and written by a newer release
  4  could not be read; also wrong usage of a path, such as a directory that is no log
The highest one counts. Wrong arguments are 64.

Examples:
  highwater verify data/log
  highwater verify --quiet data/log || echo \"status $?\"";

const TAIL: &str = "\
Shows what is committed: what is known to be synced. A log whose owner never syncs shows nothing
unless --written is given, and that may vanish in a crash.

Examples:
  highwater tail data/log
  highwater tail -f -n 0 data/log
  highwater tail -f --json data/log | jq -r .text";

const REPAIR: &str = "\
What stands before the first damaged place stays, byte for byte. All that stands behind it, intact
records included, is set aside under names that end in .wal.cut, with a manifest that says what, why
and from where. Nothing is ever dropped without a copy; a torn tail is none of this, as opening cuts
and keeps it by itself. Restore from a replica or a backup instead, if there is one.

Exit status, as that of verify for the log as it is left:
  0  nothing to repair, or repaired
  1  torn tail, which is left to opening
  2  corrupt: --apply would cut durable data
  3  unsupported: intact, and written by a newer release; never cut
  4  could not be read or written, or is in use
Wrong arguments are 64.

Examples:
  highwater repair data/log
  highwater repair --apply data/log && highwater verify data/log";

/// Looks inside a highwater log, and carries logs from place to place.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Describes each segment, its header and what it holds, and what opening would say
    #[command(after_help = "Example:\n  highwater inspect data/log")]
    Inspect(LogOptions),
    /// Prints the frames, oldest first, also intact ones past damage
    #[command(after_help = "\
Examples:
  highwater dump data/log
  highwater dump data/log --from 4096 --as hex
  highwater dump data/log --as json | jq -r 'select(.kind == \"record\") | .text'
  highwater dump data/log --skip-damaged --json > whole.jsonl 2> gaps.txt")]
    Dump(DumpOptions),
    /// Prints the last records, and with -f those to come, until Ctrl-C
    #[command(after_help = TAIL)]
    Tail(TailOptions),
    /// Reads every byte of the log and says by its exit status whether it is whole
    #[command(after_help = STATUSES)]
    Verify(VerifyOptions),
    /// Says what it would take to open a damaged log again, or does it: cuts it at the damage
    #[command(after_help = REPAIR)]
    Repair(RepairOptions),
    /// Draws segments and marks, to be read at a glance
    #[command(after_help = "Example:\n  highwater stat data/log")]
    Stat(LogOptions),
    /// Writes the records to a portable stream with checksums
    #[command(after_help = crate::export::EXAMPLES)]
    Export(crate::export::ExportOptions),
    /// Makes a log of an exported stream, or of a log of wal-db 1.x or kaya-wal
    #[command(after_help = crate::import::EXAMPLES)]
    Import(crate::import::ImportOptions),
    /// Measures what a flush costs on the disk under a directory
    #[command(after_help = crate::fsync::EXAMPLES)]
    BenchFsync(crate::fsync::BenchOptions),
    /// Prints a completion script for a shell
    #[command(after_help = "Example:\n  highwater completions bash > \
                            ~/.local/share/bash-completion/completions/highwater")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    #[command(after_help = "Example:\n  highwater man | man -l -")]
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// The log's directory
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Says nothing but by the exit status, and errors
    #[arg(long, short, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RepairOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Only says what would be done, which is the default
    #[arg(long, conflicts_with = "apply")]
    pub(crate) dry_run: bool,
    /// Does it
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DumpOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Begins at this LSN
    #[arg(long, value_name = "LSN")]
    pub(crate) from: Option<Lsn>,
    /// Ends before this LSN
    #[arg(long, value_name = "LSN")]
    pub(crate) to: Option<Lsn>,
    /// How payloads are printed
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "text")]
    pub(crate) form: Form,
    /// Prints records alone, all that are whole, and tells of each damaged or missing part
    #[arg(long)]
    pub(crate) skip_damaged: bool,
}

impl DumpOptions {
    pub(crate) fn form(&self) -> Form {
        if self.log.json { Form::Json } else { self.form }
    }
}

#[derive(Debug, Args)]
pub(crate) struct TailOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Goes on with what comes, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Begins with the last so many records
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    pub(crate) records: usize,
    /// Shows also what is written and not known to be synced: it may vanish in a crash
    #[arg(long)]
    pub(crate) written: bool,
    /// How payloads are printed
    #[arg(long = "as", value_enum, value_name = "FORM", default_value = "text")]
    pub(crate) form: Form,
}

impl TailOptions {
    pub(crate) fn form(&self) -> Form {
        if self.log.json { Form::Json } else { self.form }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// A line each, the payload escaped
    Text,
    /// A line each, and the payload's bytes in rows of sixteen
    Hex,
    /// A JSON object each
    Json,
}
