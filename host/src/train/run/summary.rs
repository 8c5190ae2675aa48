//! The summary that a run prints at its end.

use crate::decimals::fixed;
use std::{fmt, path::PathBuf};

use plugin_api::manifest::{Normaliser, TermSpec};
use serde::Serialize;

use super::digest::{Change, LossOfSteps};
use crate::{generate::text::SampleText, train::trainer::Trainer};

/// The results of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The run's name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Parameters of the model.
    pub parameters: u64,
    /// How many of them are trained, if that is only an adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_parameters: Option<u64>,
    /// Steps done.
    pub steps: u64,
    /// Steps that were refused because something was not finite.
    pub refused: u64,
    /// Positions computed in training.
    pub tokens: u64,
    /// Seconds of this process.
    pub seconds: f64,
    /// The loss of training steps; absent if none was finite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_loss: Option<LossOfSteps>,
    /// Important metrics in the first and the last evaluation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Change>,
    /// The metric of `checkpoint.best` with its best value, and its step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// Held-out loss before training, in nats.
    pub loss_before: Option<f64>,
    /// Held-out loss at the end, in nats where it is a cross-entropy.
    pub loss_after: Option<f64>,
    /// The loss's unit, with a space before it; empty if it has no unit.
    #[serde(skip)]
    pub unit: &'static str,
    /// The last checkpoint.
    pub checkpoint: String,
    /// Whether the run has ended.
    pub ended: bool,
    /// The last samples.
    pub samples: Vec<SampleText>,
    /// Notes that this process printed because something looks wrong: expectations that were missed, a gradient of 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The alerts that are active at the end, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<String>,
    /// Why the run stopped before its last step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// The best evaluation, whose checkpoint is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Best {
    /// The metric.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// The step.
    pub step: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.samples.is_empty() {
            writeln!(f, "samples (prompt|continuation):")?;
            for sample in &self.samples {
                writeln!(f, "{sample}")?;
            }
        }
        if let (Some(before), Some(after)) = (self.loss_before, self.loss_after) {
            writeln!(f, "held-out loss {} -> {}{}", fixed(before, 4), fixed(after, 4), self.unit)?;
        }
        if !self.figures.is_empty() {
            let figures: Vec<String> = self.figures.iter().map(Change::to_string).collect();
            writeln!(f, "held out: {}", figures.join(", "))?;
        }
        if let Some(Best { metric, value, step }) = &self.best {
            writeln!(f, "best {metric} {} at step {step}", fixed(*value, 4))?;
        }
        if let Some(LossOfSteps { first, last, least, least_step }) = self.train_loss {
            let least = format!("least {} at step {least_step}", fixed(least, 4));
            writeln!(f, "training loss {} -> {}, {least}", fixed(first, 4), fixed(last, 4))?;
        }
        let trained = self.trained_parameters.map_or_else(String::new, |trained| format!(" ({trained} trained)"));
        writeln!(
            f,
            "{} steps, {} tokens, {} parameters{trained}, {:.1} s; {} refused steps",
            self.steps, self.tokens, self.parameters, self.seconds, self.refused
        )?;
        for alert in &self.alerts {
            writeln!(f, "alert, active at the end: {alert}")?;
        }
        write!(f, "run {}, checkpoint {}", self.folder.display(), self.checkpoint)
    }
}

impl Trainer {
    /// Returns the summary of a run that had already ended when it was resumed.
    pub fn finished(&self) -> Summary {
        self.summary(format!("step-{:08}", self.state.step))
    }

    fn best(&self) -> Option<Best> {
        let metric = self.experiment().checkpoint.best.as_ref()?.metric.clone();
        Some(Best { metric, value: self.state.best?, step: self.state.best_step? })
    }

    /// Returns the summary after saving `checkpoint`.
    pub(crate) fn summary(&self, checkpoint: String) -> Summary {
        Summary {
            name: self.experiment().name.clone(),
            folder: self.moved_to.clone().unwrap_or_else(|| self.folder.path().to_owned()),
            parameters: self.learner.model.count().0,
            trained_parameters: self.learner.model.adapter().map(|_| self.learner.model.count().1),
            steps: self.state.step,
            refused: self.state.refused,
            tokens: self.state.tokens,
            seconds: self.started.elapsed().as_secs_f64(),
            train_loss: self.digest.loss(),
            figures: self.digest.changes(),
            best: self.best(),
            loss_before: self.state.loss_before,
            // An interrupted run may not have been evaluated since its start.
            loss_after: self.state.evaluated.filter(|(step, _)| *step > 0).and_then(|(_, loss)| loss),
            unit: unit(self),
            checkpoint,
            ended: self.state.ended,
            samples: self.texts.clone(),
            notes: self.notes.clone(),
            alerts: self.alerts.active(),
            stopped: self.stop_reason.clone(),
        }
    }
}

fn unit(trainer: &Trainer) -> &'static str {
    let mut terms = Vec::new();
    for active in trainer.learner.objectives.iter() {
        let own = trainer.notices.terms(active).into_iter();
        terms.extend(own.map(|term| (term, active.requirements.normaliser(term))));
    }
    unit_of(&terms)
}

/// Returns the loss's unit: nats per token if the meaning of each of its terms says nats and each term is divided by supervised
/// tokens; otherwise empty, because the host cannot know the unit.
fn unit_of(terms: &[(&TermSpec, (&Normaliser, f64))]) -> &'static str {
    let in_nats = |(term, (normaliser, times)): &(&TermSpec, (&Normaliser, f64))| {
        let words = || term.meaning.split(|c: char| !c.is_alphanumeric());
        **normaliser == Normaliser::SUPERVISED_TOKENS
            && *times == 1.0
            && words().any(|word| word == "nats" || word == "nat")
    };
    if !terms.is_empty() && terms.iter().all(in_nats) { " nats per token" } else { "" }
}
