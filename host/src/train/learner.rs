//! A model on a device with its gradient, optimizer, objectives and place in the data, and the parts of one optimizer step. A
//! run, a dry run and a comparison of backends all use this code, so their steps are the same.

use plugin_api::{contract, objective::Verdict};

use super::{
    alerts::names::SPREAD,
    auxiliary::AuxiliaryObjective,
    eval::{evaluator::HeldOutPrompts, prompts::EvalPrompt},
    memory::micro_batch::{micro_batch_tokens, recompute},
    roles::Roles,
    rollout::{RolloutModels, Rollouts, draw::Prompts, rewards::Rewards},
    step::{
        gradient::{TrainedModels, WindowLoss},
        metrics::OwnNumbers,
    },
};
use crate::{
    config::experiment::{Batch, Train},
    data::{Batcher, Examples, PackedBatch, Sequence, Window, pack},
    device::{Buffer, Device},
    error::{Error, Result},
    model::{Model, Recompute},
    objectives::{
        Objectives,
        active::{Active, broken, failed},
        clock::Clock,
        micro_batch::{cut, cut_answers, unpack},
    },
    optimizer::{self, groups::check_groups, kind::Optimizer, schedule},
    runs::breadcrumb::CrashMarker,
    setup::Setup,
};

/// A model with everything that trains it.
pub struct Learner {
    /// The device it computes on.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// The gradient of the latest window, flat.
    pub grads: Buffer,
    /// The optimizer.
    pub optimizer: Box<dyn Optimizer>,
    /// The other models.
    pub roles: Roles,
    /// The objectives whose loss is minimised.
    pub objectives: Objectives,
    /// The place in the data order.
    pub batcher: Batcher,
    /// Draws rollouts and gives their windows; absent for data that has its own answers.
    pub rollouts: Option<Rollouts>,
    /// The rewards that score answers.
    pub rewards: Rewards,
    /// Objectives with their own text.
    pub auxiliary: Vec<AuxiliaryObjective>,
    pub(super) settings: Train,
    pub(super) seed: u64,
    /// The longest sequence of the run.
    pub(super) longest: usize,
    /// Maximum positions of a micro-batch; a longer sequence is a micro-batch of its own.
    pub(super) micro_batch_tokens: usize,
    pub(super) recompute: Recompute,
    /// Optimizer steps of the run.
    steps: u64,
}

/// The part of the first step's window that a dry run computes.
pub struct FirstWindow {
    /// The micro-batches to compute.
    pub micro_batches: Vec<PackedBatch>,
    /// Positions of the whole window.
    pub positions: usize,
    /// Micro-batches of the whole window.
    pub parts: usize,
}

impl Learner {
    /// Creates a learner of `model` on the device that holds the model.
    ///
    /// # Errors
    /// A group of the optimizer that matches no parameter (a request error); memory.
    pub fn new(setup: &Setup, model: Model, roles: Roles, objectives: Objectives, batcher: Batcher) -> Result<Learner> {
        let experiment = setup.experiment();
        let device = model.device().clone();
        check_groups(&roles.learning(model.learned().table), &experiment.train.optimizer.groups)?;
        Ok(Learner {
            optimizer: optimizer::create(&device, model.learned().table, &experiment.train.optimizer)?,
            grads: model.flat_buffer()?,
            settings: experiment.train.clone(),
            seed: experiment.seed,
            longest: experiment.longest_sequence(model.config().context as usize),
            micro_batch_tokens: micro_batch_tokens(setup, &objectives),
            recompute: recompute(experiment.train.recompute),
            device,
            model,
            roles,
            objectives,
            batcher,
            rollouts: None,
            rewards: Rewards::default(),
            auxiliary: Vec::new(),
            steps: 1,
        })
    }

    /// Sets the number of optimizer steps of the run.
    pub(super) fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
        self.set_step(1);
    }

    /// Sets the optimizer step that the objectives' next calls belong to, counted from 1.
    pub(super) fn set_step(&mut self, step: u64) {
        let clock = Clock::at(step, self.steps);
        self.objectives.set_clock(clock);
        self.auxiliary.iter_mut().for_each(|one| one.objectives.set_clock(clock));
    }

    /// Returns held-out prompts of `data` with the models and rewards that answer and score them.
    pub fn held_out_prompts<'a>(
        &'a mut self,
        setup: &'a Setup,
        data: &'a dyn Examples,
        prompts: &'a [EvalPrompt],
    ) -> HeldOutPrompts<'a> {
        HeldOutPrompts {
            experiment: setup.experiment(),
            tokenizer: &setup.tokenizer,
            data,
            prompts,
            models: self.roles.models(&self.model),
            has_reference: self.roles.reference_stays(),
            objectives: &mut self.objectives,
            rewards: &self.rewards,
        }
    }

    /// Returns the context length of a step; steps count from 0.
    pub fn context(&self, step: u64) -> usize {
        let schedule = self.settings.context_schedule.as_deref();
        schedule::context_at(schedule, step, self.model.config().context as usize)
    }

    /// Returns the learning rate of a step of `total`; steps count from 0.
    pub fn learning_rate(&self, step: u64, total: u64) -> f64 {
        self.settings.optimizer.lr * schedule::rate(&self.settings.schedule, step, total)
    }

    /// Returns the window of a step in micro-batches; steps count from 0 and come in order. The objectives' calls belong to that
    /// step from now on.
    ///
    /// # Errors
    /// The data has ended; errors of plugins; rows that cannot be packed.
    pub fn window(&mut self, step: u64, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        self.next_window(step, marker)?.ok_or_else(|| Error::run("the training data has ended"))
    }

    /// As [`Learner::window`]; `None` if the data has ended. With rollouts that also happens if the objectives keep no answer of
    /// those that the data is left for.
    ///
    /// # Errors
    /// Errors of plugins; rows that cannot be packed; too many rollouts in a row of which no answer is kept.
    pub fn next_window(&mut self, step: u64, marker: &CrashMarker) -> Result<Option<Vec<PackedBatch>>> {
        self.set_step(step + 1);
        if let Some(rollouts) = &mut self.rollouts {
            while rollouts.spent() {
                let Some(prompts) = self.batcher.next_sequences(self.longest)? else { return Ok(None) };
                let (model, roles, rewards) = (&self.model, &self.roles, &self.rewards);
                let (batcher, longest) = (&mut self.batcher, self.longest);
                let more = &mut |count| Ok(batcher.next_few(longest, count)?);
                // Answers and micro-batches need buffers of other sizes: spare ones of the other phase would stay unused.
                marker.backend("trim");
                self.device.trim();
                rollouts.draw(
                    Prompts { first: prompts, more },
                    step,
                    &mut RolloutModels { models: roles.models(model), objectives: &mut self.objectives, rewards },
                    marker,
                )?;
                marker.backend("trim");
                self.device.trim();
                marker.host();
            }
            let whole_groups = self.objectives.whole_groups();
            return cut_answers(&rollouts.window()?, self.micro_batch_tokens, whole_groups).map(Some);
        }
        let Some(window) = self.batcher.next_window(self.context(step))? else { return Ok(None) };
        let composed = self.objectives.compose(window, self.seed ^ (step + 1), marker)?;
        cut(&composed, self.micro_batch_tokens).map(Some)
    }

    /// Returns whether no window is left. Possible only with `train.epochs`, if answers were dropped and the epochs therefore
    /// have fewer windows than planned.
    pub fn data_has_ended(&self) -> bool {
        self.rollouts.as_ref().is_none_or(Rollouts::spent) && self.batcher.has_ended()
    }

    /// Returns the first step's window, or its beginning if it has more than about `most` positions; with rollouts the answers
    /// to the first prompts. Advances the place in the data order.
    ///
    /// # Errors
    /// As [`Learner::window`].
    pub fn first_window(&mut self, most: usize, marker: &CrashMarker) -> Result<FirstWindow> {
        let Batch::Prompts(prompts) = self.settings.batch else {
            let whole = self.window(0, marker)?;
            let (positions, parts) = (whole.iter().map(PackedBatch::len).sum(), whole.len());
            if positions <= most {
                return Ok(FirstWindow { micro_batches: whole, positions, parts });
            }
            let sequences: Vec<Sequence> = whole.first().map(unpack).unwrap_or_default();
            let begin = pack::micro_batches(&sequences, most).into_iter().next().unwrap_or_default();
            let micro_batches = cut(&Window::new(sequences[begin].to_vec())?, most)?;
            return Ok(FirstWindow { micro_batches, positions, parts });
        };
        let Some(rollouts) = &mut self.rollouts else { return Err(Error::run("prompts without rollouts")) };
        let all = self.batcher.next_sequences(self.longest)?.unwrap_or_default();
        let context = self.model.config().context as usize;
        let longest = all.iter().map(|prompt| rollouts.longest(prompt.ids.len(), context)).max().unwrap_or(1);
        let some = (most / (longest * rollouts.samples()).max(1)).clamp(1, all.len().max(1));
        let some = if all.len() <= some { all.len() } else { some.min(prompts) };
        let (model, roles, rewards) = (&self.model, &self.roles, &self.rewards);
        let (batcher, longest, mut rest) = (&mut self.batcher, self.longest, all[some..].to_vec());
        let more = &mut |count: usize| match rest.is_empty() {
            true => Ok(batcher.next_few(longest, count)?),
            false => Ok(rest.drain(..count.min(rest.len())).collect()),
        };
        let models = &mut RolloutModels { models: roles.models(model), objectives: &mut self.objectives, rewards };
        rollouts.draw(Prompts { first: all[..some].to_vec(), more }, 0, models, marker)?;
        while rollouts.spent() {
            let first = more(some)?;
            rollouts.draw(Prompts { first, more }, 0, models, marker)?;
        }
        let window = rollouts.window()?;
        // If there are fewer prompts than a step takes, all of them are in the window.
        let share = prompts.min(all.len()) as f64 / prompts.min(some).max(1) as f64;
        let whole_groups = self.objectives.whole_groups();
        let micro_batches = cut_answers(&window, self.micro_batch_tokens, whole_groups)?;
        let positions = (window.positions() as f64 * share) as usize;
        let parts = (micro_batches.len() as f64 * share).ceil() as usize;
        Ok(FirstWindow { micro_batches, positions, parts })
    }

    /// Adds the gradient of a window's total loss, without that of the objectives with their own text.
    pub(super) fn accumulate(&mut self, window: &[PackedBatch], marker: &CrashMarker) -> Result<WindowLoss> {
        let (model, roles, grads) = (&self.model, &self.roles, &self.grads);
        let trained = TrainedModels { models: roles.models(model), recompute: self.recompute, grads };
        trained.accumulate(&mut self.objectives, window, marker)
    }

    /// Adds the gradients of the objectives with their own text, and their losses and metrics to `out`.
    pub(super) fn accumulate_auxiliary(&mut self, out: &mut WindowLoss, marker: &CrashMarker) -> Result<()> {
        let (model, roles, grads) = (&self.model, &self.roles, &self.grads);
        let trained = TrainedModels { models: roles.models(model), recompute: self.recompute, grads };
        for one in &mut self.auxiliary {
            let window = one.window(marker)?;
            let own = trained.accumulate(&mut one.objectives, &window, marker)?;
            out.loss += own.loss;
            out.tokens += own.tokens;
            out.of_objectives.extend(own.of_objectives);
            let (prefix, weight) =
                one.objectives.iter().next().map_or(("", 1.0), |active| (active.prefix.as_str(), active.weight));
            if weight != 0.0 {
                out.metrics.push((format!("{prefix}loss"), own.loss / weight));
            }
            out.metrics.extend(own.metrics.into_iter().filter(|(name, _)| name.starts_with(prefix)));
        }
        Ok(())
    }

    /// Calls each objective's `after_step` with its own numbers of the window.
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn after_step(&mut self, window: &[OwnNumbers], marker: &CrashMarker) -> Result<Verdict> {
        let (mut verdict, rollouts) = (Verdict::CONTINUE, self.rollouts.is_some());
        for active in self.every_objective() {
            marker.objective(&active.id, "after_step");
            let own = window.iter().find(|own| own.table == active.table).map(OwnNumbers::all).unwrap_or_default();
            let answer = active.instance.after_step(&own).map_err(|e| failed(&active.id, "after_step", e))?;
            contract::verdict(answer, rollouts).map_err(|why| broken(&active.id, "after_step", why, &[]))?;
            active.check_requirements()?;
            match answer {
                Verdict::CONTINUE => {}
                other if verdict != Verdict::STOP => verdict = other,
                _ => {}
            }
        }
        match &mut self.rollouts {
            Some(rollouts) if verdict == Verdict::END_ROLLOUT => rollouts.drop_rest(),
            _ => {}
        }
        Ok(verdict)
    }

    /// All objectives; those with their own text come last.
    pub fn every_objective(&mut self) -> impl Iterator<Item = &mut Active> {
        self.objectives.iter_mut().chain(self.auxiliary.iter_mut().flat_map(|one| one.objectives.iter_mut()))
    }

    /// Returns the names of all metrics that steps may report, in the order of their lines: those of every run, those that
    /// objectives declare, and those of rollouts.
    pub fn metric_names(&self) -> Vec<String> {
        let of_every_step = ["loss", "lr", "grad_norm", "tokens", "context", "token_accuracy"];
        let mut names: Vec<String> = of_every_step.map(str::to_owned).to_vec();
        let own = |active: &Active, several: bool| {
            // The only term of the only objective is the loss itself.
            let terms = active.manifest.terms.iter().filter(|_| several).map(|term| &term.name);
            let metrics = active.manifest.metrics.iter().map(|metric| &metric.name);
            terms.chain(metrics).map(|name| format!("{}{name}", active.prefix)).collect::<Vec<String>>()
        };
        for objectives in std::iter::once(&self.objectives).chain(self.auxiliary.iter().map(|one| &one.objectives)) {
            let most = objectives.iter().map(|active| active.manifest.terms.len()).max().unwrap_or(0);
            let several = most + objectives.iter().count() > 2;
            names.extend(objectives.iter().flat_map(|active| own(active, several)));
        }
        let auxiliary = self.auxiliary.iter().flat_map(|one| one.objectives.iter());
        names.extend(auxiliary.map(|active| format!("{}loss", active.prefix)));
        names.extend(self.roles.critic.as_ref().map(|_| "critic/grad_norm".to_owned()));
        if self.rollouts.is_some() {
            names.extend(self.rewards.metrics());
            names.extend(["prompts", "kept", "skipped"].map(|name| format!("answers/{name}")));
            names.extend(self.rewards.any_weighted().then(|| SPREAD.to_owned()));
        }
        names
    }

    /// Returns the states of all objectives, in the order of [`Learner::every_objective`].
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn states(&self) -> Result<Vec<Vec<u8>>> {
        let mut states = self.objectives.states()?;
        for one in &self.auxiliary {
            states.extend(one.objectives.states()?);
        }
        Ok(states)
    }

    /// Applies one optimizer update in step `step`, counted from 1, then updates the reference model if it tracks the policy.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn update(&mut self, lr: f64, step: u64) -> Result<()> {
        let learned = self.model.learned();
        self.optimizer.update(learned.params, learned.shadow, &self.grads, lr)?;
        // The recorded mean and deviation of scores belong to the weights before this update.
        self.model.config_mut().scores = None;
        self.roles.update(lr)?;
        self.update_reference(step)
    }

    /// Updates the reference model if it tracks the policy, also after a step whose update was refused.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn update_reference(&self, step: u64) -> Result<()> {
        self.roles.update_reference(&self.model, step)
    }
}
