//! One page of a run: where, how, targets, syncs, tables, and the plots beside it.

use std::{error::Error, fmt::Write, fs, path::Path};

use crate::{contenders::Role, machine, plan::Plan, plots, rounds::Results, table, targets};

pub struct Report<'a> {
    pub plan: &'a Plan,
    pub results: &'a Results,
    /// The table of syncs, if they were counted.
    pub syncs: Option<&'a str>,
    pub dir: &'a Path,
}

impl Report<'_> {
    pub fn write(&self, out: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(out)?;
        let plots = plots::draw(self.plan, self.results, out)?;
        let file = out.join("peers.md");
        fs::write(&file, self.page(&plots))?;
        eprintln!("{} and {} plots beside it", file.display(), plots.len());
        Ok(())
    }

    fn page(&self, plots: &[String]) -> String {
        let plan = self.plan;
        let mut page = format!("# Highwater and its peers\n\n{}\n", machine::describe(self.dir));
        let _ = writeln!(
            page,
            "{} rounds, everybody in turn in each, every run a process of its own; warm-up {:?}, then \
             {:?} measured. Medians; ratios are of the same round. 256-byte records unless a work \
             says otherwise.\n\n## Targets\n\n{}",
            self.results.rounds,
            plan.warm_up,
            plan.measure,
            targets::markdown(self.results)
        );
        for plot in plots {
            let _ = writeln!(page, "![{plot}]({plot})");
        }
        if let Some(syncs) = self.syncs {
            let _ = writeln!(page, "\n## Who syncs\n\n{syncs}");
        }
        let _ = writeln!(page, "\n## Contenders\n\n| | | |\n|---|---|---|");
        for contender in &plan.contenders {
            let role = match contender.role {
                Role::Ours => "Highwater",
                Role::Peer => "peer",
                Role::ByHand => "by hand",
                Role::Floor => "floor",
            };
            let _ = writeln!(page, "| {} | {role} | {} |", contender.name, contender.how);
        }
        let _ = writeln!(page, "\n## Works\n{}", table::markdown(plan, self.results));
        page
    }
}
