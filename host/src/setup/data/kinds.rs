//! Which kind of data an experiment's objectives learn from, and which keys fit it.

use plugin_api::manifest::{DataKind, ObjectiveManifest};
use plugin_api_load::Library;

use crate::{
    config::{
        Experiment, Loaded, Mistakes,
        experiment::{Batch, Data},
    },
    data::{rows::RowKind, sources::data_source::comes_in},
    error::{Error, Result},
    objectives::active::check_data,
    setup::Setup,
};

/// An experiment's objectives, with their manifests.
pub(in crate::setup) type Manifests = [(Library, ObjectiveManifest)];

impl Setup {
    /// Returns the kind of data that the first objective learns from if `[data]` can provide it, else prompts with completions for
    /// files of rows and running text for all others.
    pub fn data_kind(&self) -> String {
        data_kind(self.experiment(), &self.objectives)
    }

    /// The kind of rows that `[data]` provides for the first objective; `None` if it does not learn from rows.
    pub(super) fn row_kind(&self) -> Option<RowKind> {
        row_kind(self.experiment(), &self.objectives)
    }

    /// Whether the objective of this index learns from its own text: it learns from running text although the first objective
    /// learns from rows.
    pub fn has_own_text(&self, index: usize, manifest: &ObjectiveManifest) -> bool {
        has_own_text(&self.data_kind(), index, manifest)
    }
}

fn row_kind(experiment: &Experiment, objectives: &Manifests) -> Option<RowKind> {
    let wanted = objectives.first().and_then(|(_, manifest)| RowKind::of(&manifest.data));
    wanted.filter(|kind| experiment.data.source().has_rows(*kind))
}

fn data_kind(experiment: &Experiment, objectives: &Manifests) -> String {
    let rows = row_kind(experiment, objectives).and(objectives.first()).map(|(_, manifest)| manifest.data.clone());
    rows.unwrap_or_else(|| experiment.data.source().usual_kind()).to_string()
}

fn has_own_text(data: &str, index: usize, manifest: &ObjectiveManifest) -> bool {
    index > 0 && manifest.data == DataKind::TEXT && data != DataKind::TEXT.as_str()
}

/// Checks that the objectives learn from the data, and that batches and other keys fit it. Returns whether the data can be read.
///
/// # Errors
/// Failures that are not mistakes.
pub(in crate::setup) fn check(loaded: &Loaded, objectives: &Manifests, mistakes: &mut Mistakes) -> Result<bool> {
    let experiment = &loaded.experiment;
    let known = experiment.objective.len() == objectives.len() && !objectives.is_empty();
    if !known || !mistakes.are_free(&["data.source"]) {
        return Ok(false);
    }
    let (kind, data) = (row_kind(experiment, objectives), data_kind(experiment, objectives));
    let mut fits = true;
    for (index, (own, (_, manifest))) in experiment.objective.iter().zip(objectives).enumerate() {
        if !has_own_text(&data, index, manifest) {
            let key = format!("{}.plugin", loaded.key_of("objective", index));
            fits &= mistakes.check(&key, check_data(&own.plugin, manifest, &data))?.is_some();
        }
    }
    if !fits {
        return Ok(false);
    }
    for (key, why) in misfits(kind, experiment.train.batch, &experiment.data) {
        if mistakes.are_free(&[key]) {
            mistakes.refuse(key, why);
        }
    }
    if kind.is_none() && experiment.eval.generate.is_some() && mistakes.are_free(&["eval.generate"]) {
        let why = "unused: running text has no completions to compare with; choose an objective that learns from rows";
        mistakes.refuse("eval.generate", why);
    }
    if kind.is_some() && experiment.train.context_schedule.is_some() && mistakes.are_free(&["train.context_schedule"]) {
        let why = "unused: rows are not cut to a length that changes; data.max_length cuts those of a file";
        mistakes.refuse("train.context_schedule", why);
    }
    Ok(true)
}

/// As [`check`], and reads the data's files for their own mistakes: for an experiment whose model or plugins are missing, so that
/// nothing else can be done with them.
///
/// # Errors
/// Failures that are not mistakes.
pub(in crate::setup) fn check_files(loaded: &Loaded, objectives: &Manifests, mistakes: &mut Mistakes) -> Result<()> {
    let experiment = &loaded.experiment;
    let source = experiment.data.source();
    let readable = mistakes.are_free(&["data"]) && source.generated().is_empty();
    if !check(loaded, objectives, mistakes)? || !readable {
        return Ok(());
    }
    let read = match row_kind(experiment, objectives) {
        Some(kind) => source.rows(kind, experiment.seed).map(drop),
        None => source.text(experiment.seed).map(drop),
    };
    mistakes.check("data", read.map_err(Error::from))?;
    Ok(())
}

/// Returns the keys that do not fit rows of this kind (`None`: running text), each with the reason.
fn misfits(kind: Option<RowKind>, batch: Batch, data: &Data) -> Vec<(&'static str, String)> {
    let (fits, remedy) = match kind {
        Some(RowKind::Preference) => {
            (matches!(batch, Batch::Pairs(_) | Batch::Tokens(_)), "batch = { pairs = 32 } or batch = { tokens = 8192 }")
        }
        Some(RowKind::Prompt) => (matches!(batch, Batch::Prompts(_)), "batch = { prompts = 32 }"),
        _ => {
            let fits = matches!(batch, Batch::Sequences(_) | Batch::Tokens(_));
            (fits, "batch = { tokens = 8192 } or batch = { sequences = 12 }")
        }
    };
    let key = match batch {
        Batch::Tokens(_) => "train.batch.tokens",
        Batch::Sequences(_) => "train.batch.sequences",
        Batch::Pairs(_) => "train.batch.pairs",
        Batch::Prompts(_) => "train.batch.prompts",
    };
    let why = format!("this data comes in {}; for example {remedy}", comes_in(kind));
    (!fits).then_some((key, why)).into_iter().chain(data.source().unused(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::experiment::{HeldOut, Jsonl, Synthetic, Text, Truncation};

    /// Catches a batch size in another unit than the data has, and options that are never read.
    #[test]
    fn batches_and_options_fit_the_kind_of_data_or_are_refused() {
        let text = || Data::Text(Text { path: Vec::new(), held_out: HeldOut::Fraction { held_out: 0.0 } });
        let key = |kind, batch, data: &Data| misfits(kind, batch, data).first().map(|(key, _)| *key);
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
        let synthetic = |equal_length, flawed| {
            let (rows, held_out_rows, tasks, segments, hint) = (1, 1, Vec::new(), false, false);
            Data::Synthetic(Synthetic { rows, held_out_rows, tasks, equal_length, flawed, segments, hint })
        };
        assert_eq!(key(None, Batch::Tokens(9), &synthetic(true, 0.0)), Some("data.equal_length"));
        assert_eq!(key(Some(RowKind::Preference), Batch::Tokens(9), &synthetic(true, 0.0)), None);
        assert_eq!(key(Some(RowKind::Prompt), Batch::Prompts(9), &synthetic(false, 0.1)), Some("data.flawed"));
        assert_eq!(key(Some(RowKind::PromptCompletion), Batch::Tokens(9), &synthetic(false, 0.1)), None);
        let rows = |truncation| {
            Data::Jsonl(Jsonl {
                path: Vec::new(),
                mix: Vec::new(),
                filter: Default::default(),
                held_out: HeldOut::Fraction { held_out: 0.0 },
                group_column: None,
                chat_template: None,
                max_length: None,
                truncation,
                segment_separator: None,
                format: None,
                columns: Default::default(),
            })
        };
        assert_eq!(
            key(Some(RowKind::Prompt), Batch::Prompts(9), &rows(Some(Truncation::Right))),
            Some("data.truncation")
        );
        assert_eq!(key(Some(RowKind::Prompt), Batch::Prompts(9), &rows(Some(Truncation::Left))), None);
        assert_eq!(key(Some(RowKind::PromptCompletion), Batch::Tokens(9), &rows(Some(Truncation::Right))), None);
    }
}
