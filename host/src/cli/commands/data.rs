//! `telos data`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::{
    cli::{args::column, print},
    data::rows::{Filter, Format, RowKind},
    error::{Error, Result},
    inference::inspect::{RowsToInspect, inspect},
    setup::named::{model_folder, tokenizer_folder},
};

/// Look at data.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// Show the columns, format and lengths of files of rows, which rows are dropped, and the first rows as they are learned.
    ///
    /// Reads what data.path reads: JSON lines, JSON, CSV, TSV, Parquet and Arrow, also compressed by gzip or Zstandard; files,
    /// folders or globs.
    Inspect(Inspect),
}

/// The arguments of `telos data inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Files, folders or globs.
    #[arg(required = true, value_name = "FILE")]
    paths: Vec<String>,
    /// A model, whose tokenizer, chat template and context are used: a run, a checkpoint, a folder, a GGUF file or hf:org/name.
    #[arg(long, value_name = "MODEL", conflicts_with = "tokenizer")]
    model: Option<PathBuf>,
    /// A tokenizer's folder or tokenizer.json.
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
    /// How many rows to show.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// What the rows are for; default: decided by their columns.
    #[arg(long = "as", value_name = "KIND")]
    kind: Option<Kind>,
    /// How the columns are read, as data.format says.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,
    /// A column that has another name in the file, as data.columns does: --column answer=solution.
    #[arg(long, value_name = "KEY=NAME", value_parser = column)]
    column: Vec<(String, String)>,
    /// "plain", "tokenizer", "tokenizer:NAME" (one of several) or a Jinja file; default: the tokenizer's template for messages, none for strings.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// The most tokens of a row that a model would read; longer rows are truncated or dropped as in a run. Default: the model's
    /// context, or no limit with --tokenizer.
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Drop rows with fewer tokens, as data.filter.min_tokens does.
    #[arg(long, value_name = "N")]
    min_tokens: Option<usize>,
    /// Drop rows with more tokens.
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Drop rows with fewer characters.
    #[arg(long, value_name = "N")]
    min_chars: Option<usize>,
    /// Drop rows with more characters.
    #[arg(long, value_name = "N")]
    max_chars: Option<usize>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What rows are for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Completions to learn: sft.
    Completions,
    /// Pairs of a better and a worse answer: dpo.
    Pairs,
    /// Prompts that a model answers: ppo, grpo.
    Prompts,
    /// Answers with a label: kto.
    Labelled,
}

fn format(text: &str) -> Result<Format, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("expected one of {}", Format::WORDS.join(", ")))
}

pub(in crate::cli) fn execute(args: Data) -> Result<()> {
    let Data::Inspect(Inspect {
        paths,
        model,
        tokenizer,
        rows,
        kind,
        format,
        column,
        chat_template,
        max_length,
        min_tokens,
        max_tokens,
        min_chars,
        max_chars,
        json,
    }) = args;
    let in_tokens = [("--max-length", max_length), ("--min-tokens", min_tokens), ("--max-tokens", max_tokens)];
    if let Some((flag, _)) =
        in_tokens.iter().find(|(_, given)| given.is_some() && model.is_none() && tokenizer.is_none())
    {
        return Err(Error::request(format!("{flag} counts tokens, and no tokenizer is named"))
            .with_hint("add --model MODEL or --tokenizer FOLDER"));
    }
    let kind = kind.map(|kind| match kind {
        Kind::Completions => RowKind::PromptCompletion,
        Kind::Pairs => RowKind::Preference,
        Kind::Prompts => RowKind::Prompt,
        Kind::Labelled => RowKind::Unpaired,
    });
    let model = model.map(|model| model_folder(&model)).transpose()?;
    let wanted = RowsToInspect {
        paths,
        tokenizer: match &model {
            Some(model) => Some(tokenizer_folder(model)?),
            None => tokenizer,
        },
        model,
        kind,
        format,
        columns: column.into_iter().collect(),
        chat_template,
        max_length,
        truncation: None,
        filter: Filter { min_tokens, max_tokens, min_chars, max_chars },
        shown: rows,
    };
    print::result(&inspect(&wanted, print::is_terminal())?, json)
}
