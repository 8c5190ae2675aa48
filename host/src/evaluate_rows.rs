//! Rows evaluated outside of a run: the loss of their completions, and greedy answers compared with them.

use std::fs;

use serde::Serialize;

use crate::{
    data::{
        DataError, Tokenizer,
        batcher::eval_batches,
        rows::{
            ChatTemplate, Columns, Row, RowCounts, RowKind, RowOptions, encode::Encoder, layout::Layout, split::Split,
            template::plain,
        },
    },
    error::{Error, Result},
    inference::{EVAL_TOKENS, Opened},
    train::{
        exact::{ComparedAnswer, exact_match, questions},
        records::compared,
    },
};

/// Which rows are evaluated, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowsToEvaluate {
    /// Files, folders or globs; at least one.
    pub paths: Vec<String>,
    /// `plain`, `tokenizer` or a template's file; `None`: messages by the tokenizer's template, texts as they are.
    pub chat_template: Option<String>,
    /// Columns that have other names in the files.
    pub columns: Columns,
    /// About how many prompts are answered; `None`: all.
    pub generate: Option<u64>,
}

/// How well a model answers rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowFigures {
    /// Nats per token of the completions, their end-of-text tokens counted; absent where rows have no completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Share of these tokens that were the most probable one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// These tokens.
    pub tokens: u64,
    /// Share of the greedy answers that are as their rows have them; absent where none was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
    /// Answers compared.
    pub answers: usize,
    /// What became of the rows.
    pub rows: RowCounts,
    /// Every compared answer.
    #[serde(skip)]
    pub compared: Vec<ComparedAnswer>,
}

impl RowFigures {
    /// The compared answers as JSON lines: `prompt`, `answer`, `expected`, `match`, `tokens`, `finish`.
    pub fn answer_lines(&self) -> String {
        self.compared.iter().map(|answer| compared(None, answer).to_string() + "\n").collect()
    }
}

impl Opened {
    /// Measures the loss of rows' completions, and compares greedy answers with them. Prompts alone are answered and compared with
    /// their column `answer`.
    ///
    /// # Errors
    /// Rows that cannot be read, named with file and line; rows with nothing to compare or predict; the backend's.
    pub fn evaluate_rows(&self, wanted: &RowsToEvaluate) -> Result<RowFigures> {
        let options = RowOptions {
            paths: wanted.paths.clone(),
            eval_paths: Vec::new(),
            split: Split::Share(0.0),
            columns: wanted.columns.clone(),
        };
        let corpus = match options.read(RowKind::PromptCompletion) {
            // Prompts with an answer among their columns are no completions; where they are not read either, the first error counts.
            Err(error @ DataError::Json { .. }) => options.read(RowKind::Prompt).map_err(|_| error)?,
            read => read?,
        };
        let layout =
            layout(&self.tokenizer, wanted.chat_template.as_deref(), corpus.train.iter().any(Row::has_messages))?;
        let longest = self.model.config().context as usize;
        let encoder = Encoder { tokenizer: &self.tokenizer, layout: &layout, longest, truncation: None };
        let data = encoder.encode(&corpus)?;
        let mut figures = RowFigures {
            loss: None,
            token_accuracy: None,
            tokens: 0,
            exact_match: None,
            answers: 0,
            rows: data.rows.clone().unwrap_or_default(),
            compared: Vec::new(),
        };
        if corpus.kind == RowKind::PromptCompletion {
            let (mut sum, mut correct) = (0.0, 0);
            for packed in eval_batches(&*data.train, longest, self.tokenizer.prefix(), EVAL_TOKENS.max(longest), None) {
                let scores = self.score(&packed?)?;
                sum -= scores.logp.iter().sum::<f64>();
                correct += scores.correct;
                figures.tokens += scores.logp.len() as u64;
            }
            figures.loss = Some(sum / figures.tokens.max(1) as f64);
            figures.token_accuracy = Some(correct as f64 / figures.tokens.max(1) as f64);
        }
        if wanted.generate != Some(0) {
            let asked = questions(&*data.train, &self.tokenizer, wanted.generate.unwrap_or(u64::MAX))?;
            if let Some(found) = exact_match(&self.model, &self.tokenizer, &asked)? {
                figures.exact_match = Some(found.share);
                (figures.answers, figures.compared) = (found.answers.len(), found.answers);
            }
        }
        if figures.loss.is_none() && figures.exact_match.is_none() {
            let what = format!("the rows of {} have neither a completion nor an answer to compare with", corpus.name);
            return Err(Error::request(what)
                .with_hint("add a column `completion` or `answer`, or name it: --column answer=NAME"));
        }
        Ok(figures)
    }
}

/// How rows are written; `spoken`: some of them are messages.
fn layout(tokenizer: &Tokenizer, wanted: Option<&str>, spoken: bool) -> Result<Layout> {
    let own = || {
        let name = tokenizer.name();
        let error =
            || Error::request(format!("the tokenizer {name} has no chat template of its own, or several by name"));
        tokenizer
            .chat_template()
            .map(str::to_owned)
            .ok_or_else(|| error().with_hint("give --chat-template plain, or a Jinja file"))
    };
    let source = match wanted {
        None if !spoken || tokenizer.chat_template_names().next().is_none() => plain(tokenizer),
        None | Some("tokenizer") => own()?,
        Some("plain") => plain(tokenizer),
        Some(path) => fs::read_to_string(path).map_err(|e| {
            Error::request(format!("cannot read the chat template {path}"))
                .with_cause(e)
                .with_hint("give \"plain\", \"tokenizer\" or the path of a Jinja file")
        })?,
    };
    Ok(Layout { template: ChatTemplate::new(&source, tokenizer)?, strings: wanted.is_some() })
}
