//! Old against new: how far apart, and whether that is too far.

use std::fmt::Write;

use crate::{
    Failure,
    environment::Environment,
    recorded::{Entry, Recorded},
};

pub const HEAD: &str =
    "work                           recorded        now   change  allowed  verdict";

/// How much more `new` is than `old`.
pub fn percent(old: f64, new: f64) -> f64 {
    (new / old - 1.0) * 100.0
}

pub struct Verdict {
    old: f64,
    new: f64,
    allowed_percent: f64,
}

impl Verdict {
    pub fn of(entry: &Entry, new: f64, is_same_environment: bool) -> Self {
        let allowed_percent =
            if is_same_environment { entry.tolerance_percent } else { entry.elsewhere_percent };
        Verdict { old: entry.instructions, new, allowed_percent }
    }

    /// Fewer are never a fault; a record that is no longer tight is, by and by.
    pub fn is_fine(&self) -> bool {
        percent(self.old, self.new) <= self.allowed_percent
    }

    pub fn line(&self, name: &str) -> String {
        let change = percent(self.old, self.new);
        let verdict = match () {
            () if change > self.allowed_percent => "MORE",
            () if change < -self.allowed_percent => "fewer: `record` it, so that it stays so",
            () => "as recorded",
        };
        let Verdict { old, new, allowed_percent } = self;
        format!(
            "{name:<28} {old:>10.1} {new:>10.1} {change:>+7.2}% {allowed_percent:>7.1}%  {verdict}"
        )
    }
}

/// Whether counts of the two may be compared closely; says how they differ.
///
/// # Errors
///
/// If they can't be compared at all.
pub fn environments(recorded: &Environment, here: &Environment) -> Result<bool, Failure> {
    let (old, new) = (recorded, here);
    if (&old.architecture, &old.extensions) != (&new.architecture, &new.extensions) {
        return Err(format!(
            "recorded on {} ({}), this is {} ({}): another CRC and other copying loops. Nothing was \
             checked; `record` into a file of its own there, with --recorded.",
            old.architecture, old.extensions, new.architecture, new.extensions
        )
        .into());
    }
    let parts = [
        ("compiler", &old.compiler, &new.compiler),
        ("C library", &old.c_library, &new.c_library),
        ("valgrind", &old.valgrind, &new.valgrind),
    ];
    for (part, old, new) in parts.iter().filter(|(_, old, new)| old != new) {
        println!("another {part}: recorded with {old}, this is {new}. The wider tolerance holds.");
    }
    Ok(old == new)
}

/// A line of what `record` does.
pub fn recording(name: &str, before: Option<&Entry>, first: f64, second: f64) -> String {
    let apart = percent(first.min(second), first.max(second));
    let mut line = format!("{name:<28} {first:>10.1} {second:>10.1}  apart {apart:.3} %");
    if let Some(before) = before {
        let old = before.instructions;
        let _ = write!(line, "  before {old:.1} ({:+.2} %)", percent(old, first.midpoint(second)));
    }
    line
}

/// The record as a table for people.
pub fn table(recorded: &Recorded) -> String {
    let mut table =
        "| work | operation | instructions | tolerance |\n|---|---|---|---|\n".to_owned();
    for (name, entry) in &recorded.works {
        let Entry { operation, instructions, tolerance_percent, elsewhere_percent } = entry;
        let _ = writeln!(
            table,
            "| `{name}` | {operation} | {instructions:.0} | {tolerance_percent} % ({elsewhere_percent} %) |"
        );
    }
    let Environment { architecture, extensions, compiler, c_library, valgrind } =
        &recorded.environment;
    let _ =
        writeln!(table, "\n{architecture} ({extensions}); {compiler}; {c_library}; {valgrind}.");
    table
}
