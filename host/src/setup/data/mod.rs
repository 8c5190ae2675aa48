//! Reads and tokenises an experiment's data: running text or rows, depending on its objectives.

mod columns;
pub(super) mod kinds;
mod layout;
mod reserved;

use std::path::{Path, PathBuf};

use plugin_api::manifest::Requirements;

use super::{Setup, objective_columns::Required};
use crate::{
    config::Mistakes,
    data::{
        Corpus, TrainingData,
        rows::{
            Every, RowCorpus, RowCounts, RowKind,
            encode::{Encoder, Reads},
            layout::RowLayout,
            template::DOCUMENTS,
            unread,
        },
        sources::data_source::Writing,
    },
    error::{Error, Result},
    objectives::reads::reads_last,
};

impl Setup {
    /// Reads and tokenises the data; with `cached`, tokens are kept in the runs folder from one run to the next.
    ///
    /// # Errors
    /// A request error that names the file and how to fix it.
    pub fn data(&self, cached: bool) -> Result<TrainingData> {
        let mut mistakes = self.loaded.mistakes();
        let data = self.data_or_mistakes(cached, &mut mistakes)?;
        mistakes.finish()?;
        data.ok_or_else(|| Error::run("the data was not read"))
    }

    /// As [`Setup::data`]; mistakes are collected. `None` if the data cannot be read because of them.
    ///
    /// # Errors
    /// Failures that are not mistakes.
    pub fn data_or_mistakes(&self, cached: bool, mistakes: &mut Mistakes) -> Result<Option<TrainingData>> {
        // Mistakes about the fit of keys, which are found next, do not keep files from being read.
        let readable = mistakes.are_free(&["data"]);
        if !kinds::check(&self.loaded, &self.objectives, mistakes)? || !readable {
            return Ok(None);
        }
        let source = self.experiment().data.source();
        for (key, rows) in source.generated() {
            // The default of one number follows from the other, so the first one that is too large is enough.
            if mistakes.check(key, self.check_examples(key, rows))?.is_none() {
                return Ok(None);
            }
        }
        let required = self.required();
        for Required { key, requirements, .. } in &required {
            self.check_least_context(key, requirements, mistakes);
            if !self.check_reserved_ids(key, requirements, mistakes) {
                return Ok(None);
            }
        }
        let data = match self.row_kind() {
            Some(kind) => self.rows(kind, &required, cached, mistakes)?,
            None => self.text(cached, mistakes)?,
        };
        let sides = data.iter().flat_map(|data| [&data.train, &data.held_out]);
        for (side, Required { key, requirements, .. }) in
            sides.flat_map(|side| required.iter().map(move |one| (side, one)))
        {
            if mistakes.are_free(&[key.as_str()]) {
                self.check_reserved_texts(key, requirements, &**side, mistakes);
            }
        }
        Ok(data)
    }

    /// The text that the source generates, for an objective that learns from running text in addition to rows.
    ///
    /// # Errors
    /// More examples than memory can hold.
    pub(crate) fn generated_text(&self) -> Result<Corpus> {
        let source = self.experiment().data.source();
        source.generated().into_iter().try_for_each(|(key, rows)| self.check_examples(key, rows))?;
        Ok(source.text(self.experiment().seed)?)
    }

    fn text(&self, cached: bool, mistakes: &mut Mistakes) -> Result<Option<TrainingData>> {
        let experiment = self.experiment();
        let read = || {
            let corpus = experiment.data.source().text(experiment.seed)?;
            let context = experiment.longest_sequence(self.config.context as usize);
            let cache = cached.then(|| self.token_cache());
            Ok(corpus.tokenize(&self.tokenizer, context, cache.as_deref())?)
        };
        mistakes.check("data", read())
    }

    fn token_cache(&self) -> PathBuf {
        Path::new(&self.experiment().runs_dir).join(".cache").join("tokens")
    }

    fn rows(
        &self,
        kind: RowKind,
        required: &[Required],
        cached: bool,
        mistakes: &mut Mistakes,
    ) -> Result<Option<TrainingData>> {
        let experiment = self.experiment();
        let source = experiment.data.source();
        let read = source.rows(kind, experiment.seed).map_err(Error::from);
        let Some(corpus) = mistakes.check("data", read)? else { return Ok(None) };
        // An objective that learns from prompts alone needs a reward, and its absence is reported there.
        let unscored = experiment.eval.generate.is_some() && experiment.reward.is_empty() && kind != RowKind::Prompt;
        if unscored
            && mistakes.are_free(&["eval.generate", "reward"])
            && Every(&[&corpus.held_out]).find(|row| row.text().answer.is_some())?.is_none()
        {
            let why =
                "no held-out prompt has a column `answer` to compare with; name another column by data.columns.answer";
            mistakes.refuse("eval.generate", why);
        }
        self.check_reward_columns(kind, &corpus, mistakes)?;
        if !self.check_objective_columns(required, &corpus, mistakes)? {
            return Ok(None);
        }
        let Writing { chat_template, truncation, filter, .. } = source.writing();
        let has_messages = Every(&[&corpus.train, &corpus.held_out]).survey().with_messages > 0;
        let layout = mistakes.check("data.chat_template", self.layout(chat_template, has_messages))?;
        let Some((layout, file)) = layout else { return Ok(None) };
        let longest = self.longest_row(kind);
        let context = experiment.context.as_ref().map(|table| table.prompt.as_str());
        let cache = cached.then(|| self.token_cache());
        let encoder = Encoder {
            tokenizer: &self.tokenizer,
            layout: &layout,
            longest,
            truncation,
            filter,
            context,
            reads: reads(required),
            cache: cache.as_deref(),
        };
        let corpus = RowCorpus { sources: corpus.sources.iter().cloned().chain(file).collect(), ..corpus };
        let Some(mut data) = mistakes.check("data", encoder.encode(&corpus).map_err(Error::from))? else {
            return Ok(None);
        };
        if let Some(counts) = &mut data.rows {
            self.count_unread_columns(&corpus, &layout, required, counts)?;
        }
        Ok(Some(data))
    }

    fn count_unread_columns(
        &self,
        corpus: &RowCorpus,
        layout: &RowLayout,
        required: &[Required],
        counts: &mut RowCounts,
    ) -> Result<()> {
        let sides = [&*corpus.train, &*corpus.held_out];
        let (every, survey) = (Every(&sides), Every(&sides).survey());
        let mut read = self.read_columns()?;
        read.extend(required.iter().flat_map(|one| &one.requirements.columns).map(|column| column.name.clone()));
        if !survey.has(DOCUMENTS) || every.find(|row| !layout.reads_documents(row) && row.has(DOCUMENTS))?.is_none() {
            read.insert(DOCUMENTS.to_owned());
        }
        counts.unread_columns = unread::unread(&survey, corpus.kind, &read);
        counts.undeclared_columns = unread::undeclared(&survey, corpus.kind, &read, |name| self.names_column(name));
        // Columns that never reach an objective are reported by other notes.
        let undeclared = std::mem::take(&mut counts.undeclared_columns);
        let is_reported = |name: &String| {
            counts.ragged_columns.contains(name)
                || counts.inexact_columns.contains(name)
                || counts.has_ragged_list(name)
        };
        counts.undeclared_columns = undeclared.into_iter().filter(|name| !is_reported(name)).collect();
        Ok(())
    }

    /// The maximum positions of a row; a prompt that rollouts answer must leave room for the longest answer.
    fn longest_row(&self, kind: RowKind) -> usize {
        let (experiment, context) = (self.experiment(), self.config.context as usize);
        let longest = experiment.longest_sequence(context);
        let answer = experiment.rollout.as_ref().filter(|_| kind == RowKind::Prompt).map_or(0, |r| r.max_new_tokens);
        // An answer as long as the context is refused later, under its own key.
        if answer < context { longest.min(context - answer) } else { longest }
    }
}

/// Returns what the objectives read of rows beyond the tokens before each target.
fn reads(required: &[Required]) -> Reads {
    let any = |test: fn(&Requirements) -> bool| required.iter().any(|one| test(&one.requirements));
    Reads { last: any(reads_last), segments: any(|own| own.columns.iter().any(|column| column.per_segment)) }
}
