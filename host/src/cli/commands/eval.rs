//! `telos eval`.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::{
    cli::{args::BackendArgs, out::check_new, print},
    config::schema,
    error::{Error, Result},
    inference::{
        evaluate_rows::{RowFigures, RowsToEvaluate},
        saved_model::{Opened, TextFigures},
    },
    keys::mistake::suggestion,
    runs::disk::write_durably,
};

/// Measure a model's loss on text (nats per token, perplexity, token accuracy), or on rows, whose prompts it also answers.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["data", "rows"]))]
pub struct Eval {
    /// A run, a checkpoint or a Hugging Face folder.
    model: PathBuf,
    /// Running text: UTF-8 files, folders or globs.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    data: Vec<String>,
    /// JSON lines with prompts and completions, or conversations: the loss of the completions, and greedy answers
    /// compared with them. For prompts with a column `answer`, only the answers are compared.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "data")]
    rows: Vec<String>,
    /// With --rows: "plain", "tokenizer" or a Jinja file; default: the tokenizer's template for messages, none for strings.
    #[arg(long, value_name = "TEMPLATE", requires = "rows")]
    chat_template: Option<String>,
    /// With --rows: a column that has another name in the file, as data.columns does: --column answer=solution.
    #[arg(long, value_name = "KEY=NAME", requires = "rows", value_parser = column)]
    column: Vec<(String, String)>,
    /// With --rows: what follows each segment of a completion that is a list of texts, as data.segment_separator does;
    /// default: a line break.
    #[arg(long, value_name = "TEXT", requires = "rows")]
    segment_separator: Option<String>,
    /// With --rows: about how many prompts to answer; 0: none; default: all.
    #[arg(long, value_name = "N", requires = "rows")]
    generate: Option<u64>,
    /// With --rows: write every answer to this file, as JSON lines with prompt, answer, expected (also_right: other
    /// correct answers of the row) and match.
    #[arg(long, value_name = "FILE", requires = "rows")]
    out: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
    /// With --json: also the negative log-probability of every predicted token, in the order of the text.
    #[arg(long, requires = "json")]
    per_token: bool,
}

/// The request of `telos eval`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalRequest {
    /// The model's folder.
    pub model: PathBuf,
    /// Text: files, folders or globs; empty if rows are given.
    pub data: Vec<String>,
    /// Rows instead of text.
    pub rows: Option<RowsToEvaluate>,
    /// The file for the answers to rows.
    pub out: Option<PathBuf>,
    /// The backend.
    pub backend: BackendArgs,
    /// Where to look for plugins.
    pub plugin_folders: Vec<PathBuf>,
    /// Whether the results are printed as JSON.
    pub json: bool,
    /// Whether they include the loss of each token.
    pub per_token: bool,
}

pub(in crate::cli) fn execute(args: Eval, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let Eval {
        model,
        data,
        rows,
        chat_template,
        column,
        segment_separator: separator,
        generate,
        out,
        backend,
        json,
        per_token,
    } = args;
    // With --data, which conflicts with --rows, clap does not require --rows.
    let only_rows = [
        ("--chat-template", chat_template.is_some()),
        ("--column", !column.is_empty()),
        ("--segment-separator", separator.is_some()),
        ("--generate", generate.is_some()),
        ("--out", out.is_some()),
    ];
    if let Some((flag, _)) = only_rows.iter().find(|(_, given)| *given && rows.is_empty()) {
        return Err(Error::request(format!("{flag} is for --rows, not for --data"))
            .with_hint(format!("leave {flag} out, or give rows with --rows FILE")));
    }
    if per_token && !rows.is_empty() {
        return Err(Error::request("--per-token is for text, not for --rows").with_hint("leave one of them out"));
    }
    if let (Some(0), Some(out)) = (generate, &out) {
        return Err(Error::request(format!("--out {}: with --generate 0 there are no answers", out.display()))
            .with_hint("leave one of them out"));
    }
    let columns = column.into_iter().collect();
    let rows =
        (!rows.is_empty()).then_some(RowsToEvaluate { paths: rows, chat_template, columns, generate, separator });
    perform(EvalRequest { model, data, rows, out, backend, plugin_folders, json, per_token })
}

/// Evaluates and prints the results.
fn perform(request: EvalRequest) -> Result<()> {
    request.out.as_deref().map_or(Ok(()), |out| check_new("--out", out))?;
    let opened = Opened::open(&request.model, &request.backend.choice(request.plugin_folders))?;
    let Some(rows) = &request.rows else {
        return print::result(&opened.evaluate(&request.data, request.per_token)?, request.json);
    };
    let figures = opened.evaluate_rows(rows)?;
    if let Some(out) = &request.out {
        write_durably(out, figures.answer_lines().as_bytes())?;
    }
    print::result(&figures, request.json)
}

/// `KEY=NAME` as a pair.
fn column(text: &str) -> Result<(String, String), String> {
    let (key, name) =
        text.split_once('=').ok_or_else(|| "expected KEY=NAME, for example answer=solution".to_owned())?;
    let (key, name) = (key.trim().to_owned(), name.trim().to_owned());
    let known = || schema::children("data.columns");
    if known().all(|known| known != key) {
        return Err(format!("`{key}` is not a column with a meaning; {}", suggestion(&key, known())));
    }
    Ok((key, name))
}

impl fmt::Display for RowFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(loss), Some(accuracy)) = (self.loss, self.token_accuracy) {
            let ends = if self.ends_counted { "their ends counted" } else { "their ends not counted" };
            writeln!(f, "loss            {loss:.6} nats per token of the completions, {ends}")?;
            writeln!(f, "perplexity      {:.4}", loss.exp())?;
            writeln!(f, "token accuracy  {:.2} %", 100.0 * accuracy)?;
            writeln!(f, "tokens          {}", self.tokens)?;
        }
        if let Some(share) = self.exact_match {
            writeln!(f, "exact match     {:.2} % of {} greedy answers", 100.0 * share, self.answers)?;
        }
        // All rows are evaluated, so the notes about some of them follow after that number.
        let rows = self.rows.to_string();
        let notes = rows.split_once("; ").map_or(String::new(), |(_, notes)| format!("; {notes}"));
        write!(f, "rows            {}{notes}", self.rows.train)
    }
}

impl fmt::Display for TextFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = match self.end_tokens {
            1 => "1 end-of-text token".to_owned(),
            several => format!("{several} end-of-text tokens"),
        };
        let counted = self.end_tokens > 0;
        let how = if counted { format!(", {ends} counted") } else { String::new() };
        let text = |value: Option<f64>| value.filter(|_| counted);
        writeln!(f, "loss            {:.6} nats per token{how}", self.loss)?;
        if let Some(loss) = text(self.loss_without_end) {
            writeln!(f, "  text alone    {loss:.6} nats per token")?;
        }
        writeln!(f, "perplexity      {:.4}", self.perplexity)?;
        if let Some(perplexity) = text(self.perplexity_without_end) {
            writeln!(f, "  text alone    {perplexity:.4}")?;
        }
        writeln!(f, "bits per byte   {:.4}", self.bits_per_byte)?;
        if let Some(bits) = text(self.bits_per_byte_without_end) {
            writeln!(f, "  text alone    {bits:.4}")?;
        }
        writeln!(f, "token accuracy  {:.2} %", 100.0 * self.token_accuracy)?;
        writeln!(f, "tokens          {}", self.tokens)?;
        write!(f, "bytes           {}", self.bytes)
    }
}
