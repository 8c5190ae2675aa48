//! The training run. [`Trainer::step`] is the loop of the design in its order: packed batch, trunk forward, head
//! statistics, the objectives' losses and cotangents, head and trunk backward, clip and AdamW, metrics, checkpoint.
//!
//! What surrounds it: [`setup`] reads and checks, [`learner`] holds what learns, [`window`] goes through one optimizer window,
//! [`optim`] updates, [`state`] is what a checkpoint holds, [`records`] is what is written down.

pub mod auxiliary;
pub mod dry_run;
pub mod eval;
pub mod learner;
pub mod memory;
mod notices;
pub mod optimizer;
pub mod preference_pairs;
mod quick_laws;
pub mod roles;
pub mod rollout;
pub mod run;
pub mod step;

use std::{path::PathBuf, time::Instant};

use plugin_api::objective::Verdict;

use crate::{
    config::{
        Experiment,
        experiment::{EarlyStop, MetricRule},
    },
    data::{PackedBatch, TrainingData},
    error::{Error, Result},
    generate::{
        GenerateOptions,
        text::{self, SampleText},
    },
    runs::{
        Checkpoints, Interrupt, Progress, RunFolder,
        breadcrumb::CrashMarker,
        disk::{shown, write_durably},
        progress::Show,
        receipt::{Receipt, Replaced},
    },
    setup::Setup,
};
use eval::{
    Figures,
    exact_match::{EXACT_MATCH, Question, exact_match},
    expectations,
    generation::{self, Exam},
    held_out::{self, evaluate, held_out, held_out_stretches},
    improve::improve,
};
use learner::Learner;
use notices::Notices;
use optimizer::{Gradient, moments};
use quick_laws::ToProve;
use roles::reference_pass::{PassEnd, ReferencePass, RowsRead};
use rollout::{Rollouts, sampling::Policy};
use run::{
    open,
    records::{self, Phases, Records, StepLine},
    state::{self, TrainState},
    summary::Summary,
};
use step::gradient::WindowLoss;

/// A run in progress.
pub struct Trainer {
    setup: Setup,
    learner: Learner,
    held_out: Vec<PackedBatch>,
    data: TrainingData,
    /// What a frozen reference has to do before the first step of this process, or has done.
    reference: Option<ReferencePass>,
    /// Held-out prompts to answer in evaluations; none where `eval.generate` is not given.
    questions: Vec<Question>,
    folder: RunFolder,
    /// Where the folder was moved to while the run went on.
    moved_to: Option<PathBuf>,
    /// The experiment of a run that was made longer, and what its receipt says of that, written with its next checkpoint: until then
    /// the run is the shorter one.
    longer: Option<(String, Replaced)>,
    checkpoints: Checkpoints,
    records: Records,
    progress: Progress,
    marker: CrashMarker,
    state: TrainState,
    /// State of each objective after the latest step; none before the first one.
    states: Vec<Vec<u8>>,
    /// The latest samples, for the summary.
    texts: Vec<SampleText>,
    /// What looks wrong and is said once.
    notices: Notices,
    /// What was said so.
    notes: Vec<String>,
    /// When this process took the run up.
    started: Instant,
    /// Whether the device is ahead of `state`: from the update of a step until its line is written.
    torn: bool,
    /// Which objectives are still to be checked on a batch.
    to_prove: ToProve,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// Early stopping, or an objective's word.
    Early,
    /// The user asked; the run can be resumed.
    Interrupted,
}

impl Trainer {
    /// Opens device, model and records of a run: a new one, or, with `resume`, the one of that name from its last
    /// checkpoint.
    ///
    /// # Errors
    /// Request errors before anything is written; what the file system says.
    pub fn new(setup: Setup, resume: bool, show: Show) -> Result<Trainer> {
        open::trainer(setup, resume, show)
    }

    /// Trains until the end, an early stop or an interruption, and leaves a checkpoint behind in each case.
    ///
    /// # Errors
    /// A plugin's or the backend's failure, non-finite losses in a row, files that cannot be written. What is consistent
    /// has been saved then, and the error says where.
    pub fn run(&mut self, interrupt: &Interrupt) -> Result<(End, Summary)> {
        let end = self.go_on_to_the_end(interrupt).map_err(|error| self.save_after(error))?;
        let saved = self.save()?;
        self.progress.finish();
        Ok((end, self.summary(saved)))
    }

    /// Trains, then evaluates and samples the trained model.
    fn go_on_to_the_end(&mut self, interrupt: &Interrupt) -> Result<End> {
        if !self.score_by_reference(interrupt)? {
            return Ok(End::Interrupted);
        }
        if self.state.step == 0 {
            // Memory may be tried with rows that no step reads.
            self.reference.iter().for_each(|reference| reference.stand_in(true));
            self.rehearse()?;
            self.reference.iter().for_each(|reference| reference.stand_in(false));
        }
        let said = notices::at_start(self.experiment(), &self.learner)?;
        said.into_iter().try_for_each(|text| self.note(text))?;
        self.prove_next_window()?;
        // A plugin that fails its trial is about to be changed, and is not pinned.
        self.setup.lock.save()?;
        // After a failure between a step and its evaluation, the evaluation is still to do, and what follows from it.
        let better = self.evaluate_if(self.state.step == 0)?;
        self.sample_if(false)?;
        if self.state.step > 0 && !self.state.stopped {
            self.state.stopped = self.is_to_stop(Verdict::CONTINUE);
        }
        if better && !self.state.stopped && self.state.step < self.state.total {
            self.save_or_say();
        }
        while self.state.step < self.state.total && !self.state.stopped {
            if interrupt.requested() {
                return Ok(End::Interrupted);
            }
            if self.learner.data_has_ended() {
                self.progress.message(&format!("the data has ended after step {}", self.state.step));
                break;
            }
            let verdict = self.step()?;
            // Known before an evaluation that may fail.
            self.state.stopped = verdict == Verdict::STOP;
            let better = self.evaluate_if(false)?;
            self.sample_if(false)?;
            self.state.stopped = self.is_to_stop(verdict);
            let every = self.experiment().checkpoint.every;
            // The last step's checkpoint comes at the end, with the last evaluation and samples in it.
            let last = self.state.stopped || self.state.step == self.state.total;
            if !last && (better || (every > 0 && self.state.step.is_multiple_of(every))) {
                self.save_or_say();
            }
        }
        self.evaluate_if(true)?;
        self.sample_if(true)?;
        self.state.ended = true;
        self.note_unchecked()?;
        let beside = self.learner.beside.iter().flat_map(|beside| beside.objectives.iter());
        let said = self.notices.end(self.learner.objectives.iter().chain(beside));
        said.into_iter().try_for_each(|text| self.note(text))?;
        Ok(if self.state.stopped { End::Early } else { End::Done })
    }

    /// Gives the rows that the rest of the run reads the log-probabilities of a frozen reference, and lets that model go. Returns
    /// false where the user interrupts it.
    fn score_by_reference(&mut self, interrupt: &Interrupt) -> Result<bool> {
        let Some(pass) = self.reference.take() else { return Ok(true) };
        let steps = self.state.total.saturating_sub(self.state.step);
        let train = self.learner.batcher.documents_ahead(steps, self.learner.context(self.state.step))?;
        let evaluated = held_out_stretches(&self.setup, &self.data).iter().map(|row| row.document).collect();
        let role = self.learner.roles.reference.as_mut();
        let model = role.and_then(|role| role.model.take());
        let model = model.ok_or_else(|| Error::run("the reference model is not there"))?;
        self.marker.backend("reference pass");
        match pass.run(&model, &RowsRead { train, held_out: evaluated }, &self.progress, interrupt)? {
            PassEnd::Interrupted => return Ok(false),
            PassEnd::Scored(note) => self.progress.message(&note),
        }
        drop(model);
        self.reference = Some(pass);
        self.held_out = held_out(&self.setup, &self.learner.objectives, &self.data)?;
        Ok(true)
    }

    /// One optimizer step.
    fn step(&mut self) -> Result<Verdict> {
        let mut phases = Phases::start();
        let context = self.learner.context(self.state.step);
        self.marker.step(self.state.step + 1);
        let micro_batches = self.learner.window(self.state.step, &self.marker)?;
        phases.end("data");
        self.prove(&micro_batches)?;

        let (out, gradient) = self.learner.gradient(&micro_batches, &self.marker)?;
        phases.end("gradient");

        // Before the update, so that a plugin which fails here leaves the step before behind, whole.
        let verdict = self.after_step(&out.metrics)?;
        self.marker.backend("update");
        let lr = self.learner.learning_rate(self.state.step, self.state.total);
        let finite = out.loss.is_finite() && gradient.finite;
        self.torn = true;
        if finite {
            self.learner.update(lr, self.state.step + 1)?;
        } else {
            self.learner.follow(self.state.step + 1)?;
        }
        phases.end("optimizer");

        if let Some(rollouts) = &mut self.learner.rollouts {
            rollouts.commit();
        }
        self.state.data = self.learner.batcher.state().clone();
        self.state.beside = self.learner.beside.iter().map(|beside| beside.batcher.state().clone()).collect();
        self.state.step += 1;
        self.state.tokens += out.tokens;
        self.state.updates = self.learner.adam.updates;
        let line = StepLine { step: self.state.step, lr, gradient, finite, context, out: &out };
        self.records.step(&line, &phases, self.learner.device.memory())?;
        let said = self.learner.rollouts.as_mut().map(Rollouts::said).unwrap_or_default();
        self.records.answers(self.state.step, &said)?;
        self.records.done();
        self.torn = false;
        if self.state.step == 1 {
            self.check_first_step(&out)?;
        }
        self.notice(&out, gradient)?;
        self.progress.step(self.state.step, out.loss, out.tokens as f64 / phases.total());
        self.count_bad(finite, out.loss, gradient.norm)?;
        Ok(verdict)
    }

    /// A non-finite step has changed nothing; too many in a row end the run.
    fn count_bad(&mut self, finite: bool, loss: f64, norm: f64) -> Result<()> {
        if finite {
            self.state.bad_steps = 0;
            return Ok(());
        }
        self.state.bad_steps += 1;
        self.state.refused += 1;
        let step = self.state.step;
        self.progress
            .message(&format!("step {step}: loss {loss}, gradient norm {norm}: not finite, the update is refused"));
        if self.state.bad_steps < self.experiment().train.max_bad_steps {
            return Ok(());
        }
        Err(Error::run(format!(
            "{} steps in a row were not finite, the last of them step {step}",
            self.state.bad_steps
        ))
        .with_hint("lower the learning rate, clip harder, or look at the data of these steps"))
    }

    fn after_step(&mut self, metrics: &[(String, f64)]) -> Result<Verdict> {
        let verdict = self.learner.after_step(metrics, &self.marker)?;
        self.states = self.learner.states()?;
        Ok(verdict)
    }

    /// Evaluates where it is due and says whether this is the best so far.
    fn evaluate_if(&mut self, due: bool) -> Result<bool> {
        let eval = self.experiment().eval.clone();
        let step = self.state.step;
        let due = due || (eval.every > 0 && step.is_multiple_of(eval.every));
        let nothing = self.held_out.is_empty() && self.questions.is_empty();
        if !due || nothing || self.state.evaluated.is_some_and(|(at, _)| at == step) {
            return Ok(false);
        }
        let start = Instant::now();
        let Learner { model, roles, objectives, .. } = &mut self.learner;
        let mut figures = Figures::new();
        if !self.held_out.is_empty() {
            figures = evaluate(model, roles, objectives, &self.held_out, &self.marker)?;
            if let Some(scores) = held_out::spread_of_scores(&figures) {
                model.config_mut().scores = Some(scores);
            }
        }
        figures.extend(self.answers()?);
        self.notices.figures(figures.iter().map(|(name, _)| name.as_str()));
        self.records.evaluation(step, &figures, start.elapsed())?;
        self.progress.message(&records::evaluation_line(step, &figures));
        let best = self.experiment().checkpoint.best.clone();
        // Of the weights that the run began with no checkpoint is kept.
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

    /// What is found of the policy's answers to held-out prompts.
    fn answers(&mut self) -> Result<Figures> {
        if self.questions.is_empty() {
            return Ok(Figures::new());
        }
        self.marker.backend("generation");
        let (experiment, Learner { model, roles, objectives, rewards, .. }) =
            (self.setup.experiment(), &mut self.learner);
        let tokenizer = &self.setup.tokenizer;
        let mut figures = Figures::new();
        let step = self.state.step;
        if let Some(found) = exact_match(model, tokenizer, &self.questions)? {
            figures.push((EXACT_MATCH.to_owned(), found.share));
            self.records.compared(step, &found.answers)?;
        }
        if !rewards.is_empty() {
            let policy = Policy { model, tokenizer, data: &*self.data.held_out };
            let options = generation::options(experiment, &self.questions);
            // Log-probabilities are those of the policy that answers: of greedy answers, at the temperature of 1.
            let usual = objectives.temperature();
            objectives.answer_at(if options.temperature > 0.0 { options.temperature } else { 1.0 });
            let tokens = rewards.tokens();
            let judged = Exam { policy, roles, objectives, rewards, options, tokens }.figures(&self.questions);
            objectives.answer_at(usual);
            let (judged, rewarded) = judged?;
            figures.extend(judged);
            self.records.rewarded(step, &rewarded)?;
        }
        Ok(figures)
    }

    /// Whether an objective says so, or early stopping is out of patience; tells why.
    fn is_to_stop(&self, verdict: Verdict) -> bool {
        let step = self.state.step;
        if verdict == Verdict::STOP {
            self.progress.message(&format!("stopped after step {step}: an objective asked for it"));
            return true;
        }
        let stop = self.experiment().eval.early_stop.as_ref();
        let Some(stop) = stop.filter(|stop| self.state.evaluations_without_gain >= stop.patience) else { return false };
        let EarlyStop { metric: MetricRule { metric, .. }, patience, .. } = stop;
        let why = format!("{metric} has not become better in {patience} evaluations");
        self.progress.message(&format!("stopped after step {step}: {why}"));
        true
    }

    fn sample_if(&mut self, last: bool) -> Result<()> {
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
        self.records.samples(step, &texts)?;
        self.state.sampled = Some(step);
        self.records.done();
        if !last {
            texts.iter().for_each(|text| self.progress.message(&text.to_string()));
        }
        self.texts = texts;
        Ok(())
    }

    /// Tries the largest batch before the first step, so that memory runs out now or never.
    fn rehearse(&mut self) -> Result<()> {
        self.learner.try_worst_batch(&self.marker)
    }

    /// A checkpoint that cannot be written does not end the run: the last good one stays.
    fn save_or_say(&mut self) {
        if let Err(error) = self.save() {
            self.progress.message(&format!("{}the run goes on without this checkpoint", error.report()));
        }
    }

    fn save(&mut self) -> Result<String> {
        self.marker.host();
        if !optimizer::global_norm(&self.learner.device, self.learner.model.params())?.finite {
            let step = self.state.step;
            return Err(Error::run(format!("the weights after step {step} are not finite; they are not saved"))
                .with_hint("lower the learning rate; the checkpoint before is intact"));
        }
        if let Some(place) = self.folder.moved()?
            && self.moved_to.as_ref() != Some(&place)
        {
            let from = self.folder.path().display();
            self.progress.message(&format!(
                "note: the folder of the run was moved from {from} to {}: the run goes on there",
                place.display()
            ));
            self.moved_to = Some(place);
        }
        self.state.lines = self.records.durable()?;
        // The files' bytes pass through the process: spare buffers make room for them.
        self.learner.device.trim();
        let Learner { model, adam, roles, rollouts, .. } = &self.learner;
        let (state, states, tokenizer) = (&self.state, &self.states, &self.setup.tokenizer);
        let start = Instant::now();
        let best = state.best_step == Some(state.step);
        let saved = self.checkpoints.save(state.step, best, |folder| {
            model.save(folder)?;
            tokenizer.save(folder)?;
            moments::write_moments(adam, folder)?;
            roles.save(folder)?;
            if let Some(rollouts) = rollouts {
                rollouts.save(folder)?;
            }
            state::write_objectives(states, folder)?;
            state.write(folder)
        })?;
        for warning in &saved.warnings {
            self.progress.message(warning);
        }
        let name = saved.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Err(error) = self.write_longer() {
            self.progress.message(&format!("{}{name} is saved all the same", error.report()));
        }
        self.progress.message(&format!("saved {name} in {:.2} s", start.elapsed().as_secs_f64()));
        Ok(name)
    }

    /// Writes down that the run was made longer, once there is a checkpoint of the longer one.
    fn write_longer(&mut self) -> Result<()> {
        let Some((text, changed)) = &self.longer else { return Ok(()) };
        let mut receipt = Receipt::read(&self.folder.receipt())?;
        // It stands there already where the experiment alone could not be written.
        if receipt.changed.last() != Some(changed) {
            receipt.changed.push(changed.clone());
            receipt.write(&self.folder.receipt())?;
        }
        write_durably(&self.folder.experiment(), text.as_bytes())?;
        self.longer = None;
        Ok(())
    }

    /// After a failure: what the last whole step left is consistent, and is saved.
    fn save_after(&mut self, error: Error) -> Error {
        self.progress.finish();
        let step = self.state.step;
        // Nothing can be resumed, and the next try would find the name taken.
        if step == 0 && self.folder.discard() {
            return error.with_details([format!(
                "removed {}: the run ended before its first step",
                self.folder.path().display()
            )]);
        }
        if self.torn {
            let kept = self.checkpoints.latest().ok().flatten();
            let kept =
                kept.map_or("there is none yet".to_owned(), |c| format!("the last is {}", shown(&c.path).display()));
            return error.with_details([format!("step {} is half done: go on from a checkpoint; {kept}", step + 1)]);
        }
        if step == 0 {
            return error;
        }
        match self.save() {
            Ok(name) => {
                let saved = format!("step {step} is saved as {name}: mend the cause and go on with --resume");
                let otherwise = "where that takes another experiment, start one from there with --name and model.from";
                error.with_details([saved, otherwise.to_owned()])
            }
            Err(second) => {
                error.with_details([format!("the state after step {step} could not be saved: {}", second.message())])
            }
        }
    }

    /// Says so where `figures` are not what the objectives expect before training: of fresh weights with `fresh` all, else what
    /// does not depend on the weights.
    fn check_expectations(&mut self, figures: &[(String, f64)], fresh: bool) -> Result<()> {
        let vocab = fresh.then_some(self.learner.model.config().vocab);
        for missed in expectations::all_missed(&self.learner.objectives, figures, vocab) {
            // The first step misses what the evaluation before it has missed.
            let (quantity, _) = missed.split_once(" is ").unwrap_or_default();
            if !self.notes.iter().any(|note| note.split_once(" is ").is_some_and(|(known, _)| known == quantity)) {
                self.note(missed)?;
            }
        }
        Ok(())
    }

    /// Says something once, and writes it down: in timing.jsonl, and for the summary.
    fn note(&mut self, text: String) -> Result<()> {
        if self.notes.contains(&text) {
            return Ok(());
        }
        self.progress.message(&format!("note: {text}"));
        self.records.note(self.state.step, &text)?;
        self.records.done();
        self.notes.push(text);
        Ok(())
    }

    /// What looks as if nothing were learned.
    fn notice(&mut self, out: &WindowLoss, gradient: Gradient) -> Result<()> {
        self.notices.figures(out.metrics.iter().map(|(name, _)| name.as_str()));
        let spread = self.learner.rollouts.as_mut().and_then(Rollouts::spread);
        let said = [self.notices.step(self.state.step, gradient.norm), spread.and_then(|s| self.notices.rollout(s))];
        said.into_iter().flatten().try_for_each(|text| self.note(text))
    }

    /// The same for the first step, which may begin from a trained model. What needs fresh weights was looked at in the evaluation
    /// before it, where there was one.
    fn check_first_step(&mut self, out: &WindowLoss) -> Result<()> {
        let fresh = self.setup.model_folder.is_none() && self.state.loss_before.is_none();
        let mut figures = vec![("loss".to_owned(), out.loss)];
        figures.extend(out.metrics.iter().cloned());
        self.check_expectations(&figures, fresh)
    }

    fn experiment(&self) -> &Experiment {
        self.setup.experiment()
    }
}
