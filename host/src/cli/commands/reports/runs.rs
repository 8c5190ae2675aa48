//! `telos runs`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use crate::{
    cli::print,
    error::Result,
    report::{
        listing::Listing,
        prune::{Pruning, Request},
    },
};

/// List runs with their state, last loss, age and size, the latest first.
///
/// The stages of a pipeline are listed as PIPELINE/STAGE, the runs of a study as STUDY/RUN, and each study with the number of its
/// runs that are complete. States: running, done, stopped early, interrupted, paused, failed, crashed, and
/// lost, which is a run that no process writes and that could not record how it ended. A run that did not end as planned is
/// followed by the reason.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    /// The folder of all runs.
    #[arg(default_value = "runs", value_name = "DIR")]
    folder: PathBuf,
    /// Print the list as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    Prune(Prune),
}

/// Remove runs that died, with their checkpoints; without --yes, only list them.
///
/// A pipeline with a stage that died is removed as a whole, if its other stages ended as planned. A run stays if a process writes it,
/// if its folder holds a file that telos did not write, or if another run that stays begins at one of its models. Studies stay.
#[derive(Debug, Args)]
struct Prune {
    /// The folder of all runs.
    #[arg(default_value = "runs", value_name = "DIR")]
    folder: PathBuf,
    /// The states of the runs to remove.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STATE,...", default_values_t = [Dead::Failed, Dead::Crashed, Dead::Lost])]
    state: Vec<Dead>,
    /// Only runs whose logs are at least this old, such as 90m, 12h or 30d.
    #[arg(long, value_name = "AGE", value_parser = age, default_value = "0m")]
    older_than: Duration,
    /// Remove them.
    #[arg(long)]
    yes: bool,
    /// Print what is removed as JSON.
    #[arg(long)]
    json: bool,
}

/// A state in which no process writes a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dead {
    Failed,
    Crashed,
    Lost,
    Interrupted,
    StoppedEarly,
    Paused,
    Done,
}

impl Dead {
    fn word(self) -> &'static str {
        match self {
            Dead::Failed => "failed",
            Dead::Crashed => "crashed",
            Dead::Lost => "lost",
            Dead::Interrupted => "interrupted",
            Dead::StoppedEarly => "stopped early",
            Dead::Paused => "paused",
            Dead::Done => "done",
        }
    }
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and a unit, such as 90m, 12h or 30d".to_owned();
    let (number, unit) = text.split_at(text.len().saturating_sub(text.chars().next_back().map_or(0, char::len_utf8)));
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

pub(in crate::cli) fn execute(args: RunsArgs) -> Result<()> {
    match args.command {
        None => print::result(&Listing::read(&args.folder)?, args.json),
        Some(RunsCommand::Prune(Prune { folder, state, older_than, yes, json })) => {
            let states = state.into_iter().map(|state| state.word().to_owned()).collect();
            let plan = Pruning::plan(&Request { folder: folder.clone(), states, older_than })?;
            print::result(&if yes { plan.carry_out(&folder) } else { plan }, json)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a wrong unit, and a text that is taken for an age.
    #[test]
    fn ages_have_units() {
        assert_eq!(["90m", "12h", "30d"].map(|text| age(text).unwrap().as_secs()), [5400, 43_200, 2_592_000]);
        for wrong in ["", "12", "h", "-1d", "1.5h", "12 h", "3é", "999999999999999999d"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
