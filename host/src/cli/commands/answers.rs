//! `telos answers`.

use std::path::PathBuf;

use clap::Args;

use crate::{
    cli::{out::check_new, print},
    config::{Draft, Override},
    error::Result,
    plugins::Pinning,
    runs::disk::write_durably,
    setup::loading::prepare_draft,
    train::own_answers::rows::answers,
};

// The text is printed as help, in which brackets are not links.
#[allow(rustdoc::broken_intra_doc_links)]
/// Write a model's own answers to an experiment's prompts as rows of prompts and completions.
///
/// The experiment has prompts and [rollout], such as one for ppo; its rewards, if it has some, score the answers. The
/// model that it starts from answers every prompt. Each row also has the prompt's other columns, and whether the answer
/// ended; training on the rows distils the model into another one.
#[derive(Debug, Args)]
pub struct Answers {
    /// The experiment, a TOML file.
    file: PathBuf,
    /// The file of JSON lines to write; it must not exist yet.
    #[arg(long, value_name = "FILE.jsonl")]
    out: PathBuf,
    /// Answers to each prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    samples: u64,
    /// Overrides any key, as in `telos run`.
    #[arg(long, value_name = "KEY=VALUE", value_parser = Override::parse)]
    set: Vec<Override>,
    /// Print the counts as JSON.
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn execute(args: Answers, plugin_folders: Vec<PathBuf>) -> Result<()> {
    check_new("--out", &args.out)?;
    let setup = prepare_draft(Draft::read(&args.file, &args.set)?, &plugin_folders, Pinning::Strict)?;
    let found = answers(&setup, args.samples as usize)?;
    write_durably(&args.out, found.lines.as_bytes())?;
    print::result(&found, args.json)
}
