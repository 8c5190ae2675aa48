//! What learns: a model on a device with its gradient, optimizer, objectives and place in the data, and the parts of one
//! optimizer step. A run, a dry run and a comparison of backends take their steps here, so that they are the same steps.

use plugin_api::objective::Verdict;

use super::{
    arrays::cut,
    objectives::Objectives,
    optim::{Adam, Gradient},
    schedule,
    setup::Prepared,
    summary::largest_batch,
    trail::Trail,
    window::{WindowLoss, accumulate},
};
use crate::{
    config::experiment::{self, Batch, Train},
    data::{Batcher, PackedBatch},
    device::{Buffer, Device},
    error::{Error, Result},
    model::{Model, Recompute},
};

/// A model with everything that trains it.
pub struct Learner {
    /// Where it computes.
    pub device: Device,
    /// The model.
    pub model: Model,
    /// The gradient of the latest window, flat.
    pub grads: Buffer,
    /// The optimizer.
    pub adam: Adam,
    /// What is minimised.
    pub objectives: Objectives,
    /// The place in the data.
    pub batcher: Batcher,
    settings: Train,
    seed: u64,
    /// The longest sequence of the run.
    longest: usize,
    recompute: Recompute,
}

impl Learner {
    /// Puts `model` to work on the device it lies on.
    ///
    /// # Errors
    /// A group of the optimizer that matches no parameter (a request error); memory.
    pub fn new(prepared: &Prepared, model: Model, objectives: Objectives, batcher: Batcher) -> Result<Learner> {
        let experiment = prepared.experiment();
        let device = model.device().clone();
        Ok(Learner {
            adam: Adam::new(&device, model.layout(), &experiment.train.optimizer)?,
            grads: model.flat_buffer()?,
            settings: experiment.train.clone(),
            seed: experiment.seed,
            longest: experiment.longest_sequence(model.config().context as usize),
            recompute: match experiment.train.recompute {
                experiment::Recompute::None => Recompute::None,
                experiment::Recompute::Auto => Recompute::Auto,
                experiment::Recompute::All => Recompute::All,
            },
            device,
            model,
            objectives,
            batcher,
        })
    }

    /// The context length of a step; steps count from 0.
    pub fn context(&self, step: u64) -> usize {
        let schedule = self.settings.context_schedule.as_deref();
        schedule::context_at(schedule, step, self.model.config().context as usize)
    }

    /// The learning rate of a step of `total`; steps count from 0.
    pub fn learning_rate(&self, step: u64, total: u64) -> f64 {
        self.settings.optimizer.lr * schedule::rate(&self.settings.schedule, step, total)
    }

    /// The window of a step in micro-batches; steps count from 0 and come in order.
    ///
    /// # Errors
    /// The data has ended; the plugins' own; rows that cannot be packed.
    pub fn window(&mut self, step: u64, trail: &Trail) -> Result<Vec<PackedBatch>> {
        let window = self.batcher.next_window(self.context(step))?;
        let window = window.ok_or_else(|| Error::run("the training data has ended"))?;
        let window = self.objectives.compose(window, self.seed ^ (step + 1), trail)?;
        cut(&window, self.settings.micro_batch_tokens)
    }

    /// Loss and gradient of a window, the gradient left in `grads` and measured. No weight changes.
    ///
    /// # Errors
    /// The plugins' and the backend's own.
    pub fn gradient(&mut self, micro_batches: &[PackedBatch], trail: &Trail) -> Result<(WindowLoss, Gradient)> {
        self.model.zero(&self.grads)?;
        let out = accumulate(&self.model, &mut self.objectives, micro_batches, self.recompute, &self.grads, trail)?;
        Ok((out, self.adam.measure(&self.grads)?))
    }

    /// Tells each objective its own metrics of the step.
    ///
    /// # Errors
    /// The plugins' own.
    pub fn after_step(&mut self, metrics: &[(String, f64)], trail: &Trail) -> Result<Verdict> {
        let mut verdict = Verdict::CONTINUE;
        for active in self.objectives.iter_mut() {
            trail.objective(&active.id, "after_step");
            let own: Vec<(String, f64)> = metrics
                .iter()
                .filter_map(|(name, value)| Some((name.strip_prefix(&active.prefix)?.to_owned(), *value)))
                .collect();
            if active.instance.after_step(&own)? == Verdict::STOP {
                verdict = Verdict::STOP;
            }
        }
        Ok(verdict)
    }

    /// Moves the weights along the measured gradient.
    ///
    /// # Errors
    /// The backend's.
    pub fn update(&mut self, lr: f64) -> Result<()> {
        self.adam.update(self.model.params(), self.model.shadow(), &self.grads, lr)
    }

    /// Goes through a micro-batch as large as the experiment's largest, so that memory runs out now or never.
    ///
    /// # Errors
    /// The plugins' and the backend's own.
    pub fn rehearse(&mut self, trail: &Trail) -> Result<()> {
        let window = match self.settings.batch {
            Batch::Sequences(n) | Batch::Prompts(n) => n.saturating_mul(self.longest),
            Batch::Pairs(n) => n.saturating_mul(2).saturating_mul(self.longest),
            Batch::Tokens(n) => n,
        };
        let tokens = self.settings.micro_batch_tokens.min(window).max(self.longest);
        let packed = largest_batch(self.longest, tokens, self.model.config().vocab);
        let (model, grads, recompute) = (&self.model, &self.grads, self.recompute);
        self.objectives
            .keeping_state(|objectives| accumulate(model, objectives, &[packed], recompute, grads, trail))?;
        Ok(())
    }
}
