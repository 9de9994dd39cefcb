//! Compares counts with their records.

use std::fmt::Write;

use crate::{
    environment::Environment,
    failure::Failure,
    recorded::{Entry, Recorded},
};

pub const HEAD: &str =
    "work                           recorded        now   change  allowed  verdict";

/// Returns the increase from `old` to `new` in percent.
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

    /// Returns whether the count passes. A lower count always passes.
    pub fn is_fine(&self) -> bool {
        percent(self.old, self.new) <= self.allowed_percent
    }

    pub fn line(&self, name: &str) -> String {
        let change = percent(self.old, self.new);
        let verdict = match () {
            () if change > self.allowed_percent => "MORE",
            () if change < -self.allowed_percent => "fewer: run `record` to keep the gain",
            () => "as recorded",
        };
        let Verdict { old, new, allowed_percent } = self;
        format!(
            "{name:<28} {old:>10.1} {new:>10.1} {change:>+7.2}% {allowed_percent:>7.1}%  {verdict}"
        )
    }
}

/// Returns whether both environments are the same, and prints the differences.
///
/// # Errors
///
/// If counts of the two cannot be compared at all.
pub fn environments(recorded: &Environment, here: &Environment) -> Result<bool, Failure> {
    let (old, new) = (recorded, here);
    if (&old.architecture, &old.extensions) != (&new.architecture, &new.extensions) {
        return Err(format!(
            "recorded on {} ({}), this is {} ({}): its CRC and copying loops differ, so nothing was \
             checked. Run `record` with --recorded FILE to use a separate file for this processor.",
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
        println!(
            "another {part}: recorded with {old}, this is {new}. The wider tolerance applies."
        );
    }
    Ok(old == new)
}

/// Returns the line that `record` prints for a work.
pub fn recording(name: &str, before: Option<&Entry>, first: f64, second: f64) -> String {
    let apart = percent(first.min(second), first.max(second));
    let mut line = format!("{name:<28} {first:>10.1} {second:>10.1}  apart {apart:.3} %");
    if let Some(before) = before {
        let old = before.instructions;
        let _ = write!(line, "  before {old:.1} ({:+.2} %)", percent(old, first.midpoint(second)));
    }
    line
}

/// Returns the record as a Markdown table.
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
