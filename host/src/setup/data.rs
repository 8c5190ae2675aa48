//! Reads and tokenises an experiment's data: running text or rows, depending on its objectives.

use std::collections::BTreeSet;
use std::path::Path;

use plugin_api::manifest::{DataKind, ObjectiveManifest};

use super::Setup;
use crate::{
    config::experiment::{Batch, Data, HeldOut},
    data::{
        Corpus, Source, SyntheticOptions, TextOptions, TrainingData,
        rows::{
            ChatTemplate, Row, RowCorpus, RowKind, RowOptions, Truncation,
            encode::Encoder,
            layout::Layout,
            split::Split,
            template::{DOCUMENTS, plain, read_template, sha256},
            unread,
        },
        tokenizer::templates::DEFAULT,
    },
    error::{Error, Result, refusal_text},
    objectives::active::check_data,
    runs::breadcrumb,
};

impl Setup {
    /// Returns the kind of data that the first objective learns from if `[data]` can provide it, else prompts with completions for
    /// files of rows and running text for all others.
    pub fn data_kind(&self) -> String {
        let rows = self.row_kind().and(self.objectives.first()).map(|(_, manifest)| manifest.data.clone());
        let other = match self.experiment().data {
            Data::Jsonl { .. } => DataKind::PROMPT_COMPLETION,
            Data::Text { .. } | Data::Synthetic { .. } => DataKind::TEXT,
        };
        rows.unwrap_or(other).to_string()
    }

    /// The kind of rows that `[data]` provides for the first objective; `None` if it does not learn from rows.
    fn row_kind(&self) -> Option<RowKind> {
        let wanted = self.objectives.first().and_then(|(_, manifest)| RowKind::of(&manifest.data));
        match self.experiment().data {
            Data::Text { .. } => None,
            Data::Jsonl { .. } => wanted,
            Data::Synthetic { .. } => wanted.filter(|kind| *kind != RowKind::Unpaired),
        }
    }

    /// Reads and tokenises the data; with `cached`, text goes through the token cache in the runs folder.
    ///
    /// # Errors
    /// A request error that names the file and how to fix it.
    pub fn data(&self, cached: bool) -> Result<TrainingData> {
        let experiment = self.experiment();
        let (kind, data) = (self.row_kind(), self.data_kind());
        for (index, (own, (_, manifest))) in experiment.objective.iter().zip(&self.objectives).enumerate() {
            if !self.stands_beside(index, manifest) {
                check_data(&own.plugin, manifest, &data)?;
            }
        }
        if let Some((key, why)) = misfit(kind, experiment.train.batch, &experiment.data) {
            return Err(self.loaded.refuse(key, why));
        }
        if let Some(kind) = kind {
            return self.rows(kind);
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

    pub(crate) fn synthetic(&self) -> Result<SyntheticOptions> {
        let experiment = self.experiment();
        let Data::Synthetic { rows, held_out_rows, tasks, equal_length, flawed } = &experiment.data else {
            return Err(Error::run("the experiment's data is not synthetic"));
        };
        let tasks = tasks.iter().filter_map(|name| name.parse().ok()).collect();
        let (rows, held_out_rows, equal_length, flawed) = (*rows, *held_out_rows, *equal_length, *flawed);
        for (key, rows) in [("data.rows", rows), ("data.held_out_rows", held_out_rows)] {
            self.check_examples(key, rows)?;
        }
        Ok(SyntheticOptions { rows, held_out_rows, tasks, equal_length, flawed, seed: experiment.seed })
    }

    fn rows(&self, kind: RowKind) -> Result<TrainingData> {
        let experiment = self.experiment();
        if experiment.train.context_schedule.is_some() {
            let why = "unused: rows are not cut to a length that changes; data.max_length cuts those of a file";
            return Err(self.loaded.refuse("train.context_schedule", why));
        }
        let (corpus, template, truncation) = match &experiment.data {
            Data::Jsonl { chat_template, truncation, .. } => {
                (row_options(&experiment.data)?.read(kind)?, chat_template.as_deref(), *truncation)
            }
            _ => (self.synthetic()?.read_rows(kind)?, None, None),
        };
        let unjudged = experiment.eval.generate.is_some() && experiment.reward.is_empty();
        if unjudged && corpus.held_out.iter().all(|row| row.text().answer.is_none()) {
            let why =
                "no prompt that is held out has a column `answer` to compare with; data.columns.answer names another";
            return Err(self.loaded.refuse("eval.generate", why));
        }
        self.check_reward_columns(kind, &corpus)?;
        let spoken = corpus.train.iter().chain(&corpus.held_out).any(Row::has_messages);
        let (layout, file) = self.layout(template, spoken)?;
        let longest = self.longest_row(kind);
        let encoder = Encoder { tokenizer: &self.tokenizer, layout: &layout, longest, truncation };
        let corpus = RowCorpus { sources: corpus.sources.iter().cloned().chain(file).collect(), ..corpus };
        let mut data = encoder.encode(&corpus)?;
        if let Some(counts) = &mut data.rows {
            let every: Vec<&Row> = corpus.train.iter().chain(&corpus.held_out).collect();
            let mut read = self.read_columns()?;
            if every.iter().all(|row| layout.reads_documents(row) || !row.has(DOCUMENTS)) {
                read.insert(DOCUMENTS.to_owned());
            }
            counts.unread_columns = unread::unread(&every, kind, &read);
            counts.undeclared_columns = unread::undeclared(&every, kind, &read, |name| self.names_column(name));
            // Columns that never reach an objective are reported by other notes.
            let (ragged, inexact) = (&counts.ragged_columns, &counts.inexact_columns);
            counts.undeclared_columns.retain(|name| !ragged.contains(name) && !inexact.contains(name));
        }
        Ok(data)
    }

    /// Whether an objective's description names this column, as `NAME` or column.NAME.
    fn names_column(&self, name: &str) -> bool {
        let texts = |manifest: &ObjectiveManifest| {
            let terms = manifest.terms.iter().map(|term| &term.meaning);
            let options = manifest.options.iter().map(|option| &option.meaning);
            let texts = [&manifest.summary, &manifest.formula].into_iter().chain(terms).chain(options);
            texts.cloned().collect::<Vec<_>>().join("\n")
        };
        let plain = format!("column.{name}");
        let is_named = |text: String| {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            text.contains(&format!("`{name}`")) || text.split(&plain).skip(1).any(ends)
        };
        self.objectives.iter().any(|(_, manifest)| is_named(texts(manifest)))
    }

    /// Columns that the split reads, that rewards declare, or that an option names.
    fn read_columns(&self) -> Result<BTreeSet<String>> {
        let experiment = self.experiment();
        let mut read = BTreeSet::new();
        if let Data::Jsonl { held_out, group_column, .. } = &experiment.data {
            read.extend(group_column.clone());
            if let HeldOut::Column { split_column } = held_out {
                read.insert(split_column.clone());
            }
        }
        for library in &self.rewards {
            let manifest = breadcrumb::within(&library.info().id, "manifest", || library.reward_manifest())?;
            read.extend(manifest.declared_columns().into_iter().map(|column| column.name));
            read.extend(manifest.columns);
        }
        let of_objectives = experiment.objective.iter().flat_map(|objective| objective.options.values());
        let of_rewards = experiment.reward.iter().flat_map(|reward| reward.options.values());
        for option in of_rewards.chain(of_objectives) {
            let list = option.as_array().map(Vec::as_slice).unwrap_or(std::slice::from_ref(option));
            read.extend(list.iter().filter_map(|value| value.as_str()).map(str::to_owned));
        }
        Ok(read)
    }

    /// The maximum positions of a row; a prompt that rollouts answer must leave room for the longest answer.
    fn longest_row(&self, kind: RowKind) -> usize {
        let (experiment, context) = (self.experiment(), self.config.context as usize);
        let longest = experiment.longest_sequence(context);
        let answer = experiment.rollout.as_ref().filter(|_| kind == RowKind::Prompt).map_or(0, |r| r.max_new_tokens);
        // An answer as long as the context is refused later, under its own key.
        if answer < context { longest.min(context - answer) } else { longest }
    }

    /// Returns how rows are written, and the template's file if it comes from one. `spoken`: some rows are messages.
    fn layout(&self, wanted: Option<&str>, spoken: bool) -> Result<(Layout, Option<Source>)> {
        let refuse = |why: String| self.loaded.refuse("data.chat_template", why);
        let tokenizers = |name: &str| -> Result<_> {
            let origin = self.tokenizer.chat_template_origin(name).unwrap_or_default().to_owned();
            Ok((self.tokenizers_template(name)?, None, origin))
        };
        let here = "the template data.chat_template".to_owned();
        let (source, file, origin) = match wanted {
            None if !spoken || self.tokenizer.chat_template_names().next().is_none() => {
                (plain(&self.tokenizer), None, here)
            }
            None => tokenizers(DEFAULT)?,
            Some("plain") => (plain(&self.tokenizer), None, here),
            Some("tokenizer") => tokenizers(DEFAULT)?,
            Some(named) if named.starts_with(NAMED) => tokenizers(&named[NAMED.len()..])?,
            Some(jinja) if jinja.contains("{%") || jinja.contains("{{") => (jinja.to_owned(), None, here),
            Some(path) => {
                let text = read_template(path.as_ref()).map_err(|e| refuse(refusal_text(&Error::from(e))))?;
                let source = Source { path: path.into(), bytes: text.len() as u64, sha256: sha256(&text) };
                (text, Some(source), path.to_owned())
            }
        };
        let template =
            ChatTemplate::of(&origin, &source, &self.tokenizer).map_err(|e| refuse(refusal_text(&Error::from(e))))?;
        Ok((Layout { template, strings: wanted.is_some() }, file))
    }
}

impl Setup {
    /// Returns the chat template of this name that came with the tokenizer.
    fn tokenizers_template(&self, wanted: &str) -> Result<String> {
        if let Some(template) = self.tokenizer.named_chat_template(wanted) {
            return Ok(template.to_owned());
        }
        let names: Vec<&str> = self.tokenizer.chat_template_names().collect();
        let tokenizer = self.tokenizer.name();
        let why = match names.first() {
            None => format!("the tokenizer {tokenizer} has no chat template; try \"plain\""),
            Some(first) => format!(
                "the tokenizer {tokenizer} has chat templates called {}, and none called {wanted}; choose one by its \
                 name, such as data.chat_template = \"{NAMED}{first}\"",
                names.join(", ")
            ),
        };
        Err(self.loaded.refuse("data.chat_template", why))
    }
}

/// Prefix of the name of a chat template that came with the tokenizer.
const NAMED: &str = "tokenizer:";

/// Returns a key that does not fit rows of this kind (`None`: running text), and the reason.
fn misfit(kind: Option<RowKind>, batch: Batch, data: &Data) -> Option<(&'static str, String)> {
    let (comes_in, fits, remedy) = match kind {
        Some(RowKind::Preference) => {
            let fits = matches!(batch, Batch::Pairs(_) | Batch::Tokens(_));
            ("pairs", fits, "batch = { pairs = 32 } or batch = { tokens = 8192 }")
        }
        Some(RowKind::Prompt) => ("prompts", matches!(batch, Batch::Prompts(_)), "batch = { prompts = 32 }"),
        _ => {
            let fits = matches!(batch, Batch::Sequences(_) | Batch::Tokens(_));
            ("sequences", fits, "batch = { tokens = 8192 } or batch = { sequences = 12 }")
        }
    };
    if !fits {
        let key = match batch {
            Batch::Tokens(_) => "train.batch.tokens",
            Batch::Sequences(_) => "train.batch.sequences",
            Batch::Pairs(_) => "train.batch.pairs",
            Batch::Prompts(_) => "train.batch.prompts",
        };
        return Some((key, format!("this data comes in {comes_in}; for example {remedy}")));
    }
    match data {
        Data::Synthetic { equal_length: true, .. } if kind != Some(RowKind::Preference) => {
            Some(("data.equal_length", format!("unused: this data comes in {comes_in}, not in pairs")))
        }
        Data::Synthetic { flawed, .. } if *flawed > 0.0 && kind != Some(RowKind::PromptCompletion) => {
            Some(("data.flawed", format!("unused: this data comes in {comes_in}, not in demonstrations")))
        }
        Data::Jsonl { truncation: Some(Truncation::Right), .. } if kind != Some(RowKind::PromptCompletion) => {
            let why = "\"right\" would cut off what is judged or asked; choose \"left\" or \"drop\"";
            Some(("data.truncation", why.into()))
        }
        _ => None,
    }
}

/// Returns the options for reading files of rows.
fn row_options(data: &Data) -> Result<RowOptions> {
    let Data::Jsonl { path, held_out, group_column, columns, .. } = data else {
        return Err(Error::run("the experiment's data is no file of rows"));
    };
    let (eval_paths, split) = match (held_out, group_column) {
        (HeldOut::Fraction { held_out }, None) => (Vec::new(), Split::Share(*held_out)),
        (HeldOut::Fraction { held_out }, Some(column)) => {
            (Vec::new(), Split::Groups { share: *held_out, column: column.clone() })
        }
        (HeldOut::Files { eval_path }, _) => (eval_path.clone(), Split::Share(0.0)),
        (HeldOut::Column { split_column }, _) => (Vec::new(), Split::Column(split_column.clone())),
    };
    Ok(RowOptions { paths: path.clone(), eval_paths, split, columns: columns.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a batch size in another unit than the data has, and options that are never read.
    #[test]
    fn batches_and_options_fit_the_kind_of_data_or_are_refused() {
        let text = || Data::Text { path: Vec::new(), held_out: HeldOut::Fraction { held_out: 0.0 } };
        let key = |kind, batch, data: &Data| misfit(kind, batch, data).map(|(key, _)| key);
        let batches = [Batch::Tokens(9), Batch::Sequences(9), Batch::Pairs(9), Batch::Prompts(9)];
        for (kind, fitting) in [
            (None, [true, true, false, false]),
            (Some(RowKind::PromptCompletion), [true, true, false, false]),
            (Some(RowKind::Unpaired), [true, true, false, false]),
            (Some(RowKind::Preference), [true, false, true, false]),
            (Some(RowKind::Prompt), [false, false, false, true]),
        ] {
            assert_eq!(batches.map(|batch| key(kind, batch, &text()).is_none()), fitting, "{kind:?}");
        }
        let synthetic = |equal_length, flawed| Data::Synthetic {
            rows: 1,
            held_out_rows: 1,
            tasks: Vec::new(),
            equal_length,
            flawed,
        };
        assert_eq!(key(None, Batch::Tokens(9), &synthetic(true, 0.0)), Some("data.equal_length"));
        assert_eq!(key(Some(RowKind::Preference), Batch::Tokens(9), &synthetic(true, 0.0)), None);
        assert_eq!(key(Some(RowKind::Prompt), Batch::Prompts(9), &synthetic(false, 0.1)), Some("data.flawed"));
        assert_eq!(key(Some(RowKind::PromptCompletion), Batch::Tokens(9), &synthetic(false, 0.1)), None);
        let rows = |truncation| Data::Jsonl {
            path: Vec::new(),
            held_out: HeldOut::Fraction { held_out: 0.0 },
            group_column: None,
            chat_template: None,
            max_length: None,
            truncation,
            columns: Default::default(),
        };
        assert_eq!(
            key(Some(RowKind::Prompt), Batch::Prompts(9), &rows(Some(Truncation::Right))),
            Some("data.truncation")
        );
        assert_eq!(key(Some(RowKind::Prompt), Batch::Prompts(9), &rows(Some(Truncation::Left))), None);
        assert_eq!(key(Some(RowKind::PromptCompletion), Batch::Tokens(9), &rows(Some(Truncation::Right))), None);
    }
}
