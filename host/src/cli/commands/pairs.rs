//! `telos pairs`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{out::check_new, print},
    config::{Draft, Override},
    error::Result,
    plugins::Pinning,
    runs::disk::write_durably,
    setup::loading::prepare_draft,
    train::own_answers::pairs::pairs,
};

// The text is printed as help, in which brackets are not links.
#[allow(rustdoc::broken_intra_doc_links)]
/// Make preference rows out of a model's own answers.
///
/// The experiment has prompts, [rollout] and [[reward]], such as one for ppo. The model that it starts from answers
/// every prompt several times; the answer with the highest reward becomes `chosen`, the one with the lowest
/// `rejected`. Each row also has both scores and the prompt's other columns. Prompts that are messages stay
/// messages, and their answers become messages of the assistant. Prompts whose answers all have the same reward are
/// left out.
#[derive(Debug, Args)]
pub struct Pairs {
    /// The experiment, a TOML file.
    file: PathBuf,
    /// The file of JSON lines to write; it must not exist yet.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Answers to each prompt.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=1024))]
    samples: u64,
    /// Overrides any key, as in `telos run`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn execute(args: Pairs, plugin_folders: Vec<PathBuf>) -> Result<()> {
    check_new("--out", &args.out)?;
    let setup = prepare_draft(Draft::read(&args.file, &args.set)?, &plugin_folders, Pinning::Strict)?;
    let found = pairs(&setup, args.samples as usize)?;
    write_durably(&args.out, found.lines.as_bytes())?;
    print::result(&found, args.json)
}
