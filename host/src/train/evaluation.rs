//! A run's evaluations and samples, and what depends on them: the best checkpoint, early stopping, notes.

use std::time::Instant;

use plugin_api::objective::Verdict;

use super::{
    eval::{
        EVALUATORS, Figures, evaluator, expectations,
        held_out::{self, evaluate},
        improve::improve,
    },
    learner::Learner,
    run::records,
    step::gradient::WindowLoss,
    trainer::Trainer,
};
use crate::{
    config::experiment::{EarlyStop, MetricRule},
    error::Result,
    generate::{GenerateOptions, text},
};

impl Trainer {
    /// Evaluates if an evaluation is due. Returns whether this is the best one so far.
    pub(super) fn evaluate_if(&mut self, due: bool) -> Result<bool> {
        let eval = self.experiment().eval.clone();
        let step = self.state.step;
        let due = due || (eval.every > 0 && step.is_multiple_of(eval.every));
        let nothing = self.held_out.is_empty() && self.eval_prompts.is_empty();
        if !due || nothing || self.state.evaluated.is_some_and(|(at, _)| at == step) {
            return Ok(false);
        }
        let start = Instant::now();
        // Spare buffers of a step and of an evaluation have different sizes.
        self.learner.device.trim();
        self.learner.set_step(step);
        let Learner { model, roles, objectives, .. } = &mut self.learner;
        let mut figures = Figures::new();
        if !self.held_out.is_empty() {
            let distributions;
            (figures, distributions) = evaluate(roles.models(model), objectives, &self.held_out, &self.marker)?;
            self.records.distributions(step, "eval", &distributions)?;
            if let Some(scores) = held_out::spread_of_scores(&figures) {
                model.config_mut().scores = Some(scores);
            }
        }
        figures.extend(self.answers()?);
        self.learner.device.trim();
        self.notices.figures(figures.iter().map(|(name, _)| name.as_str()));
        let line = self.records.evaluation(step, &figures, start.elapsed())?;
        self.watch(&line)?;
        self.progress.message(&records::evaluation_line(step, &figures));
        let best = self.experiment().checkpoint.best.clone();
        // Step 0 is never checkpointed, so it cannot become the best.
        let better = step > 0 && best.is_some_and(|rule| improve(&rule, 0.0, &figures, &mut self.state.best));
        if better {
            self.state.best_step = Some(step);
        }
        if step > 0
            && let Some(stop) = eval.early_stop
        {
            let gained = improve(&stop.metric, stop.min_delta, &figures, &mut self.state.early_best);
            self.state.evaluations_without_gain = if gained { 0 } else { self.state.evaluations_without_gain + 1 };
        }
        let loss = figures.iter().find(|(name, value)| name == "loss" && value.is_finite()).map(|(_, value)| *value);
        self.state.evaluated = Some((step, loss));
        self.records.done();
        if step == 0 {
            self.state.loss_before = loss;
            if self.setup.model_folder.is_none() {
                self.check_expectations(&figures, true)?;
            }
        }
        Ok(better)
    }

    /// Returns the metrics of the policy's answers to held-out prompts, and writes the answers.
    /// The log-probabilities are those at the temperature of the sampling, and at 1 for greedy answers.
    pub(super) fn answers(&mut self) -> Result<Figures> {
        if self.eval_prompts.is_empty() {
            return Ok(Figures::new());
        }
        self.marker.backend("generation");
        let mut answered = self.learner.held_out_prompts(&self.setup, &*self.data.held_out, &self.eval_prompts);
        let mut figures = Figures::new();
        for evaluator in EVALUATORS {
            let (own, measured) = evaluator::figures(evaluator, &mut answered)?;
            figures.extend(own);
            self.records.evaluated_answers(self.state.step, measured.answers)?;
            self.records.distributions(self.state.step, "eval", &measured.distributions)?;
        }
        Ok(figures)
    }

    /// Returns whether to stop, because an objective requests it, an alert stops the run or early stopping is due, and prints and
    /// keeps the reason.
    pub(super) fn is_to_stop(&mut self, verdict: Verdict) -> bool {
        let Some(why) = self.why_to_stop(verdict) else { return false };
        self.progress.message(&format!("stopped after step {}: {why}", self.state.step));
        self.stop_reason = Some(why);
        true
    }

    pub(super) fn why_to_stop(&self, verdict: Verdict) -> Option<String> {
        if verdict == Verdict::STOP {
            return Some("an objective requested it".to_owned());
        }
        if let Some(alert) = self.alerts.stop() {
            return Some(format!("alert: {alert}"));
        }
        let stop = self.experiment().eval.early_stop.as_ref();
        let stop = stop.filter(|stop| self.state.evaluations_without_gain >= stop.patience)?;
        let EarlyStop { metric: MetricRule { metric, .. }, patience, .. } = stop;
        Some(format!("{metric} has not improved in {patience} evaluations"))
    }

    pub(super) fn sample_if(&mut self, last: bool) -> Result<()> {
        let Some(sample) = self.experiment().sample.clone() else { return Ok(()) };
        let step = self.state.step;
        let due = last || (sample.every > 0 && step.is_multiple_of(sample.every));
        if !due || self.state.sampled == Some(step) {
            return Ok(());
        }
        self.marker.backend("generation");
        let options = GenerateOptions {
            max_tokens: sample.max_tokens,
            temperature: sample.temperature,
            top_p: sample.top_p,
            top_k: sample.top_k,
            seed: sample.seed,
        };
        let tokenizer = &self.setup.tokenizer;
        let texts = text::continue_texts(&self.learner.model, tokenizer, &sample.prompts, &options)?;
        self.learner.device.trim();
        self.records.samples(step, &texts)?;
        self.state.sampled = Some(step);
        self.records.done();
        if let Some(text) = texts.first() {
            self.progress.sample(&text.to_string());
        }
        if !last {
            texts.iter().for_each(|text| self.progress.message(&text.to_string()));
        }
        self.texts = texts;
        Ok(())
    }

    /// Adds a note for each metric in `figures` that differs from what the objectives expect before training. Without `fresh`
    /// (weights that were never trained), expectations that depend on fresh weights are skipped.
    pub(super) fn check_expectations(&mut self, figures: &[(String, f64)], fresh: bool) -> Result<()> {
        let vocab = fresh.then_some(self.learner.model.config().vocab);
        for missed in expectations::all_missed(&self.learner.objectives, figures, vocab) {
            // The first step would repeat what the evaluation before it reported.
            let (quantity, _) = missed.split_once(" is ").unwrap_or_default();
            if !self.notes.iter().any(|note| note.split_once(" is ").is_some_and(|(known, _)| known == quantity)) {
                self.note(missed)?;
            }
        }
        Ok(())
    }

    /// Checks expectations on the first step, which may begin from a trained model. Those that need fresh weights are skipped
    /// if the evaluation before the step has checked them.
    pub(super) fn check_first_step(&mut self, out: &WindowLoss) -> Result<()> {
        let fresh = self.setup.model_folder.is_none() && self.state.loss_before.is_none();
        let mut figures = vec![("loss".to_owned(), out.loss)];
        figures.extend(out.metrics.iter().cloned());
        self.check_expectations(&figures, fresh)
    }
}
