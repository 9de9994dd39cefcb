//! `completions` and `man`: files for packagers.

use std::io::Write;

use clap::CommandFactory;

use crate::{
    cli::Arguments,
    exit::WRONG_USAGE,
    output::{CommandResult, failure, open},
};

pub(crate) fn completions(shell: clap_complete::Shell) -> CommandResult {
    // Generated in memory first, because the generator panics if the output fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "highwater", &mut script);
    let (mut out, _) = open();
    out.write_all(&script)?;
    out.flush()?;
    Ok(0)
}

/// Prints the manual page of one command, or one page for all commands.
pub(crate) fn man(only: Option<&str>) -> CommandResult {
    let mut command = Arguments::command();
    command.build();
    let (mut out, _) = open();
    if let Some(name) = only {
        let found = command.get_subcommands().find(|sub| sub.get_name() == name);
        let Some(found) = found.filter(|found| found.get_name() != "help") else {
            let message = format!("no command is called {name}; `highwater help` lists all");
            return Err(failure(WRONG_USAGE, message));
        };
        clap_mangen::Man::new(found.clone()).render(&mut out)?;
        out.flush()?;
        return Ok(0);
    }
    let mut main = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut main)?;
    // Names commands without `(1)`, because they are sections of this page.
    for line in String::from_utf8_lossy(&main).lines() {
        let page = line.strip_prefix("highwater\\-").and_then(|line| line.strip_suffix("(1)"));
        match page {
            Some(name) => writeln!(out, "\\fBhighwater {name}\\fR")?,
            None => writeln!(out, "{line}")?,
        }
    }
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = sub.get_bin_name().unwrap_or_default().to_uppercase();
        writeln!(out, ".SH \"{name}\"")?;
        let page = clap_mangen::Man::new(sub.clone());
        let mut sections = Vec::new();
        page.render_description_section(&mut sections)?;
        page.render_synopsis_section(&mut sections)?;
        page.render_options_section(&mut sections)?;
        page.render_extra_section(&mut sections)?;
        // These sections are one level below the command's own section.
        let sections = String::from_utf8_lossy(&sections).replace("\n.SH ", "\n.SS ");
        out.write_all(sections.as_bytes())?;
    }
    out.flush()?;
    Ok(0)
}
