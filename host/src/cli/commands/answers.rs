//! `telos answers`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{out::check_new, print},
    config::{Draft, Override},
    error::Result,
    plugins::Pinning,
    runs::Interrupt,
    setup::loading::prepare_draft,
    train::own_answers::{Wanted, rows::answers, rows_file::RowsFile},
};

// The text is printed as help, in which brackets are not links.
#[allow(rustdoc::broken_intra_doc_links)]
/// Write a model's own answers to an experiment's prompts as rows of prompts and completions.
///
/// The experiment has prompts and [rollout], such as one for ppo; its rewards, if it has some, score the answers. The
/// model that it starts from answers every prompt to train on; held-out prompts are left out, so that a model which learns
/// from the rows can be evaluated on them (--held-out answers those). Each row also has the prompt's other columns, and
/// whether the answer ended; training on the rows distils the model into another one.
///
/// Rows are written to FILE.jsonl.partial as they come, and get their name at the end. Ctrl-C keeps the rows that are
/// there; the command cannot be resumed.
#[derive(Debug, Args)]
pub struct Answers {
    /// The experiment, a TOML file.
    file: PathBuf,
    /// The file of JSON lines to write; it must not exist yet.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Answers to each prompt. Default: rollout.samples.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    samples: Option<u64>,
    /// Answer the held-out prompts instead of those to train on.
    #[arg(long)]
    held_out: bool,
    /// Overrides any key, as in `telos run`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

/// Printed at the first Ctrl-C.
const STOPPING: &str = "\nfinishing these prompts, then stopping; press Ctrl-C again to stop at once\n";

pub(in crate::cli) fn execute(args: Answers, plugin_folders: Vec<PathBuf>) -> Result<()> {
    check_new("--out", &args.out)?;
    let setup = prepare_draft(Draft::read(&args.file, &args.set)?, &plugin_folders, Pinning::Strict)?;
    let interrupt = Interrupt::listen(|_| print::err(STOPPING))?;
    let mut file = RowsFile::create(&args.out)?;
    let wanted = Wanted { samples: args.samples.map(|samples| samples as usize), held_out: args.held_out };
    let found = answers(&setup, wanted, &mut file, &interrupt)?;
    file.finish(&found)?;
    print::result(&found, args.json)
}
