//! What packagers want: completions and the manual page.

use std::io::Write;

use clap::CommandFactory;

use crate::{
    arguments::Arguments,
    output::{Answer, open},
};

pub(crate) fn completions(shell: clap_complete::Shell) -> Answer {
    // Into memory first: the generator panics where the output fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "highwater", &mut script);
    let (mut out, _) = open();
    out.write_all(&script)?;
    out.flush()?;
    Ok(0)
}

/// One page for all commands: few enough to be read together.
pub(crate) fn man() -> Answer {
    let mut command = Arguments::command();
    command.build();
    let (mut out, _) = open();
    let page = clap_mangen::Man::new(command.clone());
    page.render(&mut out)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = sub.get_bin_name().unwrap_or_default().to_uppercase();
        writeln!(out, ".SH \"{name}\"")?;
        let page = clap_mangen::Man::new(sub.clone());
        page.render_description_section(&mut out)?;
        page.render_synopsis_section(&mut out)?;
        page.render_options_section(&mut out)?;
        page.render_extra_section(&mut out)?;
    }
    out.flush()?;
    Ok(0)
}
