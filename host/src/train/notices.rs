//! Notes that a run prints once: groups of one answer, data that is read again, metrics that were declared and never returned.
//! They do not change any result. What a run's metrics show, such as a gradient of exactly 0, is watched by [alerts](super::alerts).

use std::collections::BTreeSet;

use plugin_api::manifest::{MetricSpec, Normaliser, ObjectiveManifest, TermSpec};

use crate::{
    config::{
        Experiment,
        experiment::{Length, Span},
    },
    data::{Batcher, rows::RowKind},
    error::Result,
    objectives::{Objectives, active::Active},
};

/// What this process has observed of a run so far.
#[derive(Debug, Default)]
pub struct Notices {
    returned: BTreeSet<String>,
}

impl Notices {
    /// Remembers the names of metrics that were returned.
    pub fn figures<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            if !self.returned.contains(name) {
                self.returned.insert(name.to_owned());
            }
        }
    }

    /// Returns the terms that an objective returned, according to the names of its metrics: a loss with several terms reports
    /// each of them. Before anything was returned: all terms.
    pub fn terms<'a>(&self, active: &'a Active) -> Vec<&'a TermSpec> {
        let Active { prefix, manifest, .. } = active;
        let named = |term: &TermSpec| self.returned.contains(&format!("{prefix}{}", term.name));
        let any_named = manifest.terms.iter().any(named);
        let returned = |term: &&TermSpec| match any_named {
            true => named(term),
            false => self.returned.is_empty() || !is_optional(manifest, &term.meaning),
        };
        manifest.terms.iter().filter(returned).collect()
    }

    /// Returns the notes at the end of a run: declared metrics that were never returned.
    pub fn end<'a>(&self, objectives: impl Iterator<Item = &'a Active>) -> Vec<String> {
        let mut all = Vec::new();
        for Active { id, prefix, manifest, .. } in objectives {
            let missing = never_returned(manifest, |name| self.returned.contains(&format!("{prefix}{name}")));
            if !missing.is_empty() {
                all.push(format!("objective \"{id}\" declares metrics that it never returned: {}", missing.join(", ")));
            }
        }
        all
    }
}

/// Returns whether a term or metric exists only under some options: its meaning then names one of them.
fn is_optional(manifest: &ObjectiveManifest, meaning: &str) -> bool {
    manifest.options.iter().any(|option| meaning.contains(&format!("`{}", option.name)))
}

/// Returns the declared metrics that were never returned, without those that depend on an option.
fn never_returned(manifest: &ObjectiveManifest, returned: impl Fn(&str) -> bool) -> Vec<&str> {
    let required = |metric: &&MetricSpec| !is_optional(manifest, &metric.meaning) && !returned(&metric.name);
    let missing = manifest.metrics.iter().filter(required);
    missing.map(|metric| metric.name.as_str()).collect()
}

/// Returns the notes that depend only on the experiment and its data. The first step reads `context` tokens at a time.
///
/// # Errors
/// A context length of 0.
pub fn at_start(
    experiment: &Experiment,
    objectives: &Objectives,
    batcher: &Batcher,
    context: usize,
) -> Result<Vec<String>> {
    let mut notes = single_answers(experiment, objectives);
    if let Length::Steps(steps) = experiment.train.length {
        let (rows, read) = batcher.first_window(context)?;
        notes.extend(read_again(experiment, rows, read));
        notes.extend(no_warmup(experiment.train.schedule.warmup, steps));
    }
    Ok(notes)
}

/// The note for a warm-up whose fraction of the run rounds to 0 steps.
fn no_warmup(warmup: Span, steps: u64) -> Option<String> {
    let Span::Fraction(part) = warmup else { return None };
    (steps > 0 && warmup.steps(steps) == 0).then(|| {
        format!(
            "the warm-up is {part} of {steps} steps, which rounds to 0 steps, so there is no warm-up; give it in steps, as an \
             integer"
        )
    })
}

/// The note for a batch or rollout that reads more rows than the data's `rows`.
fn read_again(experiment: &Experiment, rows: usize, read: usize) -> Option<String> {
    let noun = if !experiment.data.source().has_rows(RowKind::PromptCompletion) { "sequence" } else { "row" };
    let (reader, size) = match experiment.rollout {
        Some(_) => ("rollout", "rollout.prompts"),
        None => ("step", "train.batch"),
    };
    (read > rows).then(|| again(reader, size, noun, rows, read))
}

fn again(reader: &str, size: &str, noun: &str, rows: usize, read: usize) -> String {
    let what = match (rows, read / rows.max(1)) {
        (1, times) => format!("the data's only {noun} {times} times"),
        (_, 1) => format!("some of the data's {rows} {noun}s twice"),
        (_, times) => format!("each of the data's {rows} {noun}s at least {times} times"),
    };
    format!(
        "{size} is larger than the training data: every {reader} reads {what}; to read it only once, lower {size}, or \
         give train.epochs instead of train.steps"
    )
}

/// Returns the note for rollouts with one answer per prompt if an objective compares answers.
fn single_answers(experiment: &Experiment, objectives: &Objectives) -> Vec<String> {
    let Some(rollout) = experiment.rollout.as_ref().filter(|rollout| rollout.samples == 1) else { return Vec::new() };
    let by_groups = |active: &Active| {
        let mut terms = active.manifest.terms.iter();
        terms.any(|term| *active.requirements.normaliser(term).0 == Normaliser::GROUPS)
    };
    let (prompts, needs) = (rollout.prompts, objectives.needs());
    let ranks = objectives.iter().any(|active| active.requirements.rewards);
    if !needs.rollouts || !ranks || (needs.critic && !objectives.iter().any(by_groups)) {
        return Vec::new();
    }
    vec![format!(
        "rollout.samples = 1: each of the {prompts} prompts has one answer, so an objective that compares the answers to one \
         prompt has nothing to compare; for example rollout.samples = 8"
    )]
}

#[cfg(test)]
mod tests {
    use plugin_api::manifest::{OptionSpec, Reduction};

    use super::*;

    /// Catches a count that is not the number of rows, and a rollout that is called a step.
    #[test]
    fn a_batch_larger_than_the_data_is_noted() {
        let note = again("step", "train.batch", "row", 8, 35);
        assert!(
            note.starts_with(
                "train.batch is larger than the training data: every step reads each of the data's 8 rows at least 4 times"
            ),
            "{note}"
        );
        assert!(note.contains("train.epochs"), "{note}");
        assert!(
            again("rollout", "rollout.prompts", "row", 1, 3)
                .contains("every rollout reads the data's only row 3 times")
        );
        assert!(again("step", "train.batch", "row", 100, 101).contains("reads some of the data's 100 rows twice"));
    }

    /// Catches a warm-up that rounds to 0 steps without a note.
    #[test]
    fn a_warm_up_that_rounds_to_no_step_is_noted() {
        assert!(no_warmup(Span::Fraction(0.1), 4).is_some_and(|note| note.contains("0.1 of 4 steps")));
        assert_eq!(no_warmup(Span::Fraction(0.1), 5), None);
        assert_eq!(no_warmup(Span::Steps(0), 4), None);
    }

    /// Catches a false alarm for metrics that an option switches on.
    #[test]
    fn metrics_that_depend_on_an_option_may_be_missing() {
        let metric = |name: &str, meaning: &str| MetricSpec::new(name, Reduction::MEAN, meaning);
        let option = OptionSpec {
            name: "z_loss".into(),
            kind: "float".into(),
            default: 0.0.into(),
            min: None,
            max: None,
            choices: Vec::new(),
            meaning: "a factor".into(),
        };
        let manifest = ObjectiveManifest {
            metrics: vec![
                metric("nll", "in nats"),
                metric("log_z", "there only where `z_loss` is above 0"),
                metric("ghost", "never"),
            ],
            options: vec![option],
            ..Default::default()
        };
        assert_eq!(never_returned(&manifest, |name| name == "nll"), ["ghost"]);
        assert_eq!(never_returned(&manifest, |_| true), [""; 0]);
    }
}
