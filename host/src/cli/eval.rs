//! `telos eval`.

use std::path::PathBuf;

use clap::Args;

use super::BackendArgs;
use crate::error::{Error, Result};

/// Measure a model's loss on text: nats per token, perplexity, token accuracy.
#[derive(Debug, Args)]
pub struct Eval {
    /// A run, a checkpoint or a Hugging Face folder.
    model: PathBuf,
    /// UTF-8 files, folders or globs.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<String>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What `telos eval` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalRequest {
    /// The model's folder.
    pub model: PathBuf,
    /// Files, folders or globs; at least one.
    pub data: Vec<String>,
    /// Who computes.
    pub backend: BackendArgs,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// Whether the figures are printed as JSON.
    pub json: bool,
}

pub(super) fn execute(args: Eval, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let Eval { model, data, backend, json } = args;
    perform(EvalRequest { model, data, backend, plugin_folders, json })
}

/// Evaluates and prints the figures.
fn perform(_request: EvalRequest) -> Result<()> {
    Err(Error::run("not wired in this build: eval"))
}
