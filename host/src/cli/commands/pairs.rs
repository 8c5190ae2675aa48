//! `telos pairs`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{out::check_new, print},
    config::{Draft, Override},
    error::Result,
    plugins::Pinning,
    runs::Interrupt,
    setup::loading::prepare_draft,
    train::own_answers::{Wanted, pairs::pairs, rows_file::RowsFile},
};

// The text is printed as help, in which brackets are not links.
#[allow(rustdoc::broken_intra_doc_links)]
/// Make preference rows out of a model's own answers.
///
/// The experiment has prompts, [rollout] and [[reward]], such as one for ppo. The model that it starts from answers
/// every prompt to train on several times (--held-out: every held-out prompt); the answer with the highest reward becomes `chosen`, the one with the lowest
/// `rejected`. Each row also has both scores and the prompt's other columns. Prompts that are messages stay
/// messages, and their answers become messages of the assistant. Prompts whose answers all have the same reward are
/// left out.
///
/// Rows are written to FILE.jsonl.partial as they come, and get their name at the end. Ctrl-C keeps the rows that are
/// there; the command cannot be resumed.
#[derive(Debug, Args)]
pub struct Pairs {
    /// The experiment, a TOML file.
    file: PathBuf,
    /// The file of JSON lines to write; it must not exist yet.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Answers to each prompt. Default: rollout.samples, or 8 if that is 1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=1024))]
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

pub(in crate::cli) fn execute(args: Pairs, plugin_folders: Vec<PathBuf>) -> Result<()> {
    check_new("--out", &args.out)?;
    let setup = prepare_draft(Draft::read(&args.file, &args.set)?, &plugin_folders, Pinning::Strict)?;
    let interrupt = Interrupt::listen(|_| print::err(STOPPING))?;
    let mut file = RowsFile::create(&args.out)?;
    let wanted = Wanted { samples: args.samples.map(|samples| samples as usize), held_out: args.held_out };
    let found = pairs(&setup, wanted, &mut file, &interrupt)?;
    file.finish(&found)?;
    print::result(&found, args.json)
}
