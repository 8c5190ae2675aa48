//! `telos check`.

use std::path::PathBuf;

use clap::Args;

use super::print;
use crate::config::Override;
use crate::error::Result;
use crate::train::dry::dry_run;
use crate::train::setup::prepare;

/// Check an experiment without training: read it, load its plugins, try the worst batch, estimate memory and time.
#[derive(Debug, Args)]
pub struct Check {
    /// The experiment, a TOML file.
    file: PathBuf,
    /// Overrides any key, as in `telos run`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// What `telos check` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckRequest {
    /// The experiment's file.
    pub file: PathBuf,
    /// Overrides in order.
    pub overrides: Vec<Override>,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// Whether the findings are printed as JSON.
    pub json: bool,
}

pub(super) fn execute(args: Check, plugin_folders: Vec<PathBuf>) -> Result<()> {
    perform(CheckRequest { file: args.file, overrides: args.set, plugin_folders, json: args.json })
}

/// Checks the experiment and prints what was found.
fn perform(request: CheckRequest) -> Result<()> {
    let prepared = prepare(&request.file, &request.overrides, &request.plugin_folders, false)?;
    print::result(&dry_run(&prepared)?, request.json)
}
