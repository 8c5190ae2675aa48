//! `telos eval`.

use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::{BackendArgs, print};
use crate::error::Result;
use crate::inference::{Opened, TextFigures};

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
    /// With --json: the negative log-probability of every predicted token too, in the order of the text.
    #[arg(long, requires = "json")]
    per_token: bool,
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
    /// Whether the loss of each token is among them.
    pub per_token: bool,
}

pub(super) fn execute(args: Eval, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let Eval { model, data, backend, json, per_token } = args;
    perform(EvalRequest { model, data, backend, plugin_folders, json, per_token })
}

/// Evaluates and prints the figures.
fn perform(request: EvalRequest) -> Result<()> {
    let opened = Opened::open(&request.model, &request.backend.choice(request.plugin_folders))?;
    print::result(&opened.evaluate(&request.data, request.per_token)?, request.json)
}

impl fmt::Display for TextFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "loss            {:.6} nats per token", self.loss)?;
        writeln!(f, "perplexity      {:.4}", self.perplexity)?;
        writeln!(f, "bits per byte   {:.4}", self.bits_per_byte)?;
        writeln!(f, "token accuracy  {:.2} %", 100.0 * self.token_accuracy)?;
        writeln!(f, "tokens          {}", self.tokens)?;
        write!(f, "bytes           {}", self.bytes)
    }
}
