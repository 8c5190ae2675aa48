//! The data of an experiment, read and tokenised: running text or rows, whichever its objectives learn from.

use std::fs;
use std::path::Path;

use plugin_api::manifest::DataKind;

use super::setup::{Prepared, refusal_text};
use crate::{
    config::experiment::{Data, HeldOut},
    data::{
        Corpus, Source, SyntheticOptions, TextOptions, TrainingData,
        rows::{
            ChatTemplate, PROMPT_COMPLETION, RowCorpus, RowOptions, Truncation,
            encode::Encoder,
            layout::Layout,
            split::Split,
            template::{PLAIN, sha256},
        },
    },
    error::{Error, Result},
};

impl Prepared {
    /// The kind of data that `[data]` yields. The synthetic world yields what the first objective learns from.
    pub fn data_kind(&self) -> String {
        match self.experiment().data {
            Data::Text { .. } => DataKind::TEXT.to_string(),
            Data::Jsonl { .. } => DataKind::PROMPT_COMPLETION.to_string(),
            Data::Synthetic { .. } => {
                let rows = self.objectives.first().is_some_and(|(_, m)| m.data == DataKind::PROMPT_COMPLETION);
                (if rows { DataKind::PROMPT_COMPLETION } else { DataKind::TEXT }).to_string()
            }
        }
    }

    /// The data, tokenised; text with `cached` by way of the token cache beside the runs.
    ///
    /// # Errors
    /// A request error naming file and remedy.
    pub fn data(&self, cached: bool) -> Result<TrainingData> {
        let experiment = self.experiment();
        if self.data_kind() == DataKind::PROMPT_COMPLETION.as_str() {
            return self.rows();
        }
        if experiment.eval.generate.is_some() {
            let why =
                "unused: running text has no completions to compare with; choose an objective that learns from rows";
            return Err(self.loaded.refuse("eval.generate", why));
        }
        let corpus = self.corpus()?;
        let context = experiment.longest_sequence(self.config.context as usize);
        let cache = Path::new(&experiment.runs_dir).join(".cache").join("tokens");
        Ok(corpus.tokenize(&self.tokenizer, context, cached.then_some(cache.as_path()))?)
    }

    fn corpus(&self) -> Result<Corpus> {
        Ok(match &self.experiment().data {
            Data::Text { path, held_out } => {
                let (eval_paths, held_out) = match held_out {
                    HeldOut::Fraction { held_out } => (Vec::new(), *held_out),
                    HeldOut::Files { eval_path } => (eval_path.clone(), 0.0),
                    HeldOut::Column { .. } => return Err(Error::run("running text has no columns")),
                };
                TextOptions { paths: path.clone(), eval_paths, held_out }.read()?
            }
            Data::Synthetic { .. } => self.synthetic()?.read()?,
            Data::Jsonl { .. } => return Err(Error::run("rows are not running text")),
        })
    }

    fn synthetic(&self) -> Result<SyntheticOptions> {
        let experiment = self.experiment();
        let Data::Synthetic { rows, tasks } = &experiment.data else {
            return Err(Error::run("the experiment's data is not synthetic"));
        };
        let tasks = tasks.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(SyntheticOptions { rows: *rows, held_out_rows: (rows / 10).max(1), tasks, seed: experiment.seed })
    }

    fn rows(&self) -> Result<TrainingData> {
        let experiment = self.experiment();
        if experiment.train.context_schedule.is_some() {
            let why = "unused: rows are not cut to a length that changes; data.max_length cuts those of a file";
            return Err(self.loaded.refuse("train.context_schedule", why));
        }
        let (corpus, template, truncation) = match &experiment.data {
            Data::Jsonl { path, held_out, group_column, chat_template, truncation, .. } => {
                let corpus = row_options(path, held_out, group_column.as_deref()).read(PROMPT_COMPLETION)?;
                (corpus, chat_template.as_deref(), *truncation)
            }
            _ => (self.synthetic()?.read_rows()?, None, Truncation::default()),
        };
        let (layout, file) = self.layout(template)?;
        let longest = experiment.longest_sequence(self.config.context as usize);
        let encoder = Encoder { tokenizer: &self.tokenizer, layout: &layout, longest, truncation };
        let corpus = RowCorpus { sources: corpus.sources.iter().cloned().chain(file).collect(), ..corpus };
        Ok(encoder.encode(&corpus)?)
    }

    /// How rows are written, and the template's file where it comes from one.
    fn layout(&self, wanted: Option<&str>) -> Result<(Layout, Option<Source>)> {
        let refuse = |why: String| self.loaded.refuse("data.chat_template", why);
        let (source, file) = match wanted {
            None => (self.tokenizer.chat_template().unwrap_or_else(|| PLAIN.to_owned()), None),
            Some("plain") => (PLAIN.to_owned(), None),
            Some("tokenizer") => {
                let name = self.tokenizer.name();
                let none = || refuse(format!("the tokenizer {name} has no chat template; try \"plain\""));
                (self.tokenizer.chat_template().ok_or_else(none)?, None)
            }
            Some(jinja) if jinja.contains("{%") || jinja.contains("{{") => (jinja.to_owned(), None),
            Some(path) => {
                let text = fs::read_to_string(path).map_err(|e| refuse(format!("cannot read {path}: {e}")))?;
                let source = Source { path: path.into(), bytes: text.len() as u64, sha256: sha256(&text) };
                (text, Some(source))
            }
        };
        let template =
            ChatTemplate::new(&source, &self.tokenizer).map_err(|e| refuse(refusal_text(&Error::from(e))))?;
        Ok((Layout { template, strings: wanted.is_some() }, file))
    }
}

fn row_options(path: &[String], held_out: &HeldOut, group: Option<&str>) -> RowOptions {
    let (eval_paths, split) = match (held_out, group) {
        (HeldOut::Fraction { held_out }, None) => (Vec::new(), Split::Share(*held_out)),
        (HeldOut::Fraction { held_out }, Some(column)) => {
            (Vec::new(), Split::Groups { share: *held_out, column: column.to_owned() })
        }
        (HeldOut::Files { eval_path }, _) => (eval_path.clone(), Split::Share(0.0)),
        (HeldOut::Column { split_column }, _) => (Vec::new(), Split::Column(split_column.clone())),
    };
    RowOptions { paths: path.to_vec(), eval_paths, split }
}
