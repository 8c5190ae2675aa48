//! `telos check`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::print,
    config::{Override, Plan, experiment::Experiment},
    error::Result,
    pipeline::{self, plan},
    plugins::Pinning,
    setup::loading::open_draft,
    train::dry_run::dry_run,
};

/// Check an experiment without training: read it, load its plugins, try a small batch, count the memory, estimate
/// the time.
///
/// A pipeline is checked stage by stage, as far as possible before earlier stages have run.
#[derive(Debug, Args)]
pub struct Check {
    /// The experiment or pipeline, a TOML file.
    file: PathBuf,
    /// Overrides any key, as in `telos run`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// While developing a plugin: accept plugins whose bytes differ from the pinned ones, and report them.
    #[arg(long)]
    dev: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// The request of `telos check`.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRequest {
    /// The experiment's file.
    pub file: PathBuf,
    /// Overrides in order.
    pub overrides: Vec<Override>,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// What to do about plugins whose bytes differ from the pinned ones.
    pub pinning: Pinning,
    /// Whether the findings are printed as JSON.
    pub json: bool,
}

pub(in crate::cli) fn execute(args: Check, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let pinning = if args.dev { Pinning::Ignore } else { Pinning::Strict };
    perform(CheckRequest { file: args.file, overrides: args.set, plugin_folders, pinning, json: args.json })
}

/// Checks the experiment and prints the findings.
fn perform(request: CheckRequest) -> Result<()> {
    match Plan::read(&request.file, &request.overrides, None)? {
        Plan::Experiment(draft) => {
            print::result(&dry_run(&mut open_draft(*draft, &request.plugin_folders, request.pinning)?)?, request.json)
        }
        Plan::Pipeline(all) => {
            let found = pipeline::check::check(&all, &request.plugin_folders, request.pinning, (0, &[]))?;
            print::result(&found, request.json)
        }
        Plan::Study(all) => {
            let stages = plan::read(&all.pipeline, &request.plugin_folders, request.pinning)?;
            let experiments: Vec<Experiment> = stages.into_iter().map(|stage| stage.loaded.experiment).collect();
            let compared = all.compared_by(all.check(&experiments[all.stages()..])?.as_ref());
            let runs = (all.stages(), &compared[..]);
            let found = pipeline::check::check(&all.pipeline, &request.plugin_folders, request.pinning, runs)?;
            print::result(&found, request.json)
        }
    }
}
