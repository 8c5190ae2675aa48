//! `telos plugins try`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    authoring::trial::{self, Request},
    cli::print,
    config::Override,
    error::Result,
    runs::{Interrupt, progress::Show},
};

/// Try an objective beside a known one for a minute, in the quickstart world.
///
/// Both learn from the same start, with the same data, seeds and number of steps: a short run first measures how many
/// steps fit into the time. Prints their held-out losses and the true reward of their answers, and draws their curves.
/// The pipeline is kept as try.toml in the trial's folder; the next trial of the objective replaces it. Plugins are not
/// pinned.
///
/// An objective that reads a teacher gets one that is trained first, on examples without flaws; one that reads a context
/// gets the policy behind prompts that contain the right answer; one that scores tokens gets answers in labelled segments. An
/// objective that cannot be trained with a second one beside it, since it composes its own sequences, is compared by what
/// both report.
#[derive(Debug, Args)]
pub struct Try {
    /// Id of the objective.
    id: String,
    /// The objective to compare it with. Default: ce, sft, prm, dpo, reward, kto or grpo, by what it learns.
    #[arg(long, value_name = "ID")]
    against: Option<String>,
    /// The trial's folder. Default: runs/try-ID.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// About how long it may take on this machine.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86400))]
    seconds: u64,
    /// Set a key of the tried objective's stage, such as its own options: objective.OPTION=VALUE.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: Try, folders: Vec<PathBuf>) -> Result<()> {
    let Try { id, against, out, seconds, set, json } = args;
    let show = if json { Show::Quiet } else { Show::Auto };
    let interrupt = Interrupt::listen(|text| print::err(&format!("\n{text}\n")))?;
    let request = Request { id, against, out, seconds, sets: set, folders, show };
    let trial = trial::run(&request, &interrupt, &mut |note| print::err(&format!("{note}\n")))?;
    print::result(&trial, json)
}
