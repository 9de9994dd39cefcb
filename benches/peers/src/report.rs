//! Writes the page of a run: machine, settings, targets, syncs and tables, with the plots next to
//! it.

use std::{error::Error, fmt::Write, fs, path::Path};

use crate::{machine, plan::Plan, plots, registry::Role, rounds::Results, table, targets};

pub struct Report<'a> {
    pub plan: &'a Plan,
    pub results: &'a Results,
    /// The table of syncs, if syncs were counted.
    pub syncs: Option<&'a str>,
    pub dir: &'a Path,
}

impl Report<'_> {
    pub fn write(&self, out: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(out)?;
        let plots = plots::draw(self.plan, self.results, out)?;
        let file = out.join("peers.md");
        fs::write(&file, self.page(&plots))?;
        eprintln!("wrote {} and {} plots next to it", file.display(), plots.len());
        Ok(())
    }

    fn page(&self, plots: &[String]) -> String {
        let plan = self.plan;
        let mut page = format!("# Highwater and its peers\n\n{}\n", machine::describe(self.dir));
        let window = match plan.measure.is_zero() {
            true => "Each run has a fixed amount of work".to_owned(),
            false => format!("Warm-up {:?}, then {:?} measured", plan.warm_up, plan.measure),
        };
        let _ = writeln!(
            page,
            "{} rounds; in each round all contenders run in turn, each run in a separate process.\n\
             {window}. The values are medians, and each ratio compares\n\
             runs of the same round. Records have 256 bytes unless a work sets another size.\n\n\
             ## Targets\n\n{}",
            self.results.rounds,
            targets::markdown(self.results)
        );
        for plot in plots {
            let _ = writeln!(page, "![{plot}]({plot})");
        }
        if let Some(syncs) = self.syncs {
            let _ = writeln!(page, "\n## Syncs\n\n{syncs}");
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
