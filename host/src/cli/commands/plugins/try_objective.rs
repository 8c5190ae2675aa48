//! `telos plugins try`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    authoring::trial::{self, Request},
    cli::print,
    error::Result,
    runs::{Interrupt, progress::Show},
};

/// Try an objective beside a known one for a minute, in the quickstart world.
///
/// Both learn from the same start, with the same data, seeds and number of steps: a short run first measures how many
/// steps fit into the time. Prints their held-out losses and the true reward of their answers, and draws their curves.
/// The pipeline is kept as try.toml in the trial's folder; the next trial of the objective replaces it. Plugins are not
/// pinned.
#[derive(Debug, Args)]
pub struct Try {
    /// Id of the objective.
    id: String,
    /// The objective to compare it with. Default: ce, sft, dpo, kto or grpo, by the kind of data.
    #[arg(long, value_name = "ID")]
    against: Option<String>,
    /// The trial's folder. Default: runs/try-ID.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// About how long it may take on this machine.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86400))]
    seconds: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Try, folders: Vec<PathBuf>) -> Result<()> {
    let Try { id, against, out, seconds, json } = args;
    let show = if json { Show::Quiet } else { Show::Auto };
    let interrupt = Interrupt::listen(|text| print::err(&format!("\n{text}\n")))?;
    let request = Request { id, against, out, seconds, folders, show };
    let trial = trial::run(&request, &interrupt, &mut |note| print::err(&format!("{note}\n")))?;
    print::result(&trial, json)
}
