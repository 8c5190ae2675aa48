//! `telos runs`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::print;
use crate::error::Result;
use crate::report::listing::Listing;

/// List runs with their state, last loss, age and size, the latest first.
///
/// The stages of a pipeline are listed as PIPELINE/STAGE, the runs of a study as STUDY/RUN, and each study with the number of its
/// runs that are complete. States: running, done, stopped early, interrupted, paused, failed, crashed, and
/// lost, which is a run that no process writes and that could not record how it ended. A run that did not end as planned is
/// followed by the reason.
#[derive(Debug, Args)]
pub struct RunsArgs {
    /// The folder of all runs.
    #[arg(default_value = "runs", value_name = "DIR")]
    folder: PathBuf,
    /// Print the list as JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn execute(args: RunsArgs) -> Result<()> {
    print::result(&Listing::read(&args.folder)?, args.json)
}
