//! Standard output and the failures of commands. Output is buffered, and coloured only on a
//! terminal.

use std::{
    env, fmt,
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
    path::Path,
};

use clap::builder::styling::{AnsiColor, Style};
use highwater::inspect::Snapshot;

use crate::{
    exit::{CORRUPT, UNREADABLE, UNSUPPORTED},
    text::{safe, safe_json},
};

/// The reason why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Log(highwater::Error),
    Output(io::Error),
    /// A complete message, and the exit status for it.
    Message {
        status: u8,
        message: String,
    },
}

pub(crate) fn failure(status: u8, message: String) -> Failure {
    Failure::Message { status, message }
}

impl Failure {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Message { status, .. } => *status,
            Failure::Log(error) if error.is_corrupt() => CORRUPT,
            Failure::Log(
                highwater::Error::UnsupportedVersion { .. }
                | highwater::Error::UnsupportedFrame { .. }
                | highwater::Error::UnsupportedExtension { .. }
                | highwater::Error::UnsupportedCompression { .. },
            ) => UNSUPPORTED,
            _ => UNREADABLE,
        }
    }
}

impl From<highwater::Error> for Failure {
    fn from(error: highwater::Error) -> Self {
        Failure::Log(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::Output(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Log(highwater::Error::NotALog { path, found }) => {
                write!(
                    f,
                    "{path}: not a log: it holds {found} and no segment; name the directory with the .wal files"
                )
            }
            Failure::Log(error @ highwater::Error::Io { source, .. }) => {
                write!(f, "{error:#}{}", advice(source.kind()))
            }
            Failure::Log(error) => write!(f, "{error:#}"),
            Failure::Output(error) => write!(f, "writing the output: {error}"),
            Failure::Message { message, .. } => message.fmt(f),
        }
    }
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "; name the directory of a log",
        io::ErrorKind::NotADirectory => "; name the directory, not one of its files",
        io::ErrorKind::PermissionDenied => "; run as the user whom the log belongs to",
        _ => "",
    }
}

/// The exit status of a command, or its failure.
pub(crate) type CommandResult = Result<u8, Failure>;

pub(crate) fn snapshot(directory: &Path) -> Result<Snapshot, Failure> {
    Ok(Snapshot::of_directory(directory)?)
}

/// Returns whether standard output is a terminal that can move its cursor and change its style.
pub(crate) fn is_picture_terminal() -> bool {
    let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// Returns whether the user wants colours: <https://no-color.org>.
pub(crate) fn has_colour() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The styles of good, unusual, bad, secondary and emphasized text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paint {
    pub(crate) good: Style,
    pub(crate) odd: Style,
    pub(crate) bad: Style,
    pub(crate) dim: Style,
    pub(crate) strong: Style,
}

impl Paint {
    fn new() -> Self {
        if !is_picture_terminal() || !has_colour() {
            return Self::default();
        }
        Paint {
            good: AnsiColor::Green.on_default(),
            odd: AnsiColor::Yellow.on_default(),
            bad: AnsiColor::Red.on_default().bold(),
            dim: Style::new().dimmed(),
            strong: Style::new().bold(),
        }
    }
}

pub(crate) type Out = BufWriter<StdoutLock<'static>>;

pub(crate) fn open() -> (Out, Paint) {
    (BufWriter::with_capacity(256 << 10, io::stdout().lock()), Paint::new())
}

/// Prints one JSON document.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let (mut out, _) = open();
    writeln!(out, "{}", safe_json(serde_json::to_string_pretty(value)?))?;
    Ok(out.flush()?)
}

/// Writes a JSON object on one line.
pub(crate) fn json_line(out: &mut Out, value: &impl serde::Serialize) -> Result<(), Failure> {
    Ok(writeln!(out, "{}", safe_json(serde_json::to_string(value)?))?)
}

/// Prints a line on standard error.
pub(crate) fn note(message: impl fmt::Display) {
    eprintln!("highwater: {}", safe(message));
}

/// Prints a note if the log is in use, because it may have changed since.
pub(crate) fn note_owner(out: &mut Out, paint: Paint, pid: Option<u32>) -> io::Result<()> {
    let Some(pid) = pid else { return Ok(()) };
    let odd = paint.odd;
    writeln!(
        out,
        "{odd}note{odd:#}: in use by process {pid}: this is a snapshot; an end that looks torn may be \
         a write in progress"
    )
}
