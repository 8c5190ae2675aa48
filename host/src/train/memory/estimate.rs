//! Estimates how much memory a run takes at most: counts every buffer of its largest micro-batch, of its evaluations and of its
//! answers, in the order in which a run allocates them, and computes nothing.

use super::{largest_rows::all_rows, process::process_memory, saving::Saving};
use crate::{
    data::{Examples, PackedBatch, TrainingData, pack::pack},
    device::{Buffer, Device, sizes::SizesOnly},
    error::Result,
    generate,
    model::{Keep, Model, Statistics, files::tensor_file::PIECE, open::Bases},
    objectives::{Objectives, batch_arrays::supervised_rows, micro_batch::view, reads::Frozen},
    optimizer::{self, kind::Optimizer},
    runs::breadcrumb::CrashMarker,
    setup::Setup,
    train::{
        eval::{
            evaluator::sampling,
            prompts::{EvalPrompt, Evaluated},
        },
        learner::Learner,
        roles::{
            ContextModel, Roles,
            critic::Critic,
            reference::Reference,
            reference_pass::{self, cacheable},
        },
        step::{
            cotangents::TokenCotangents,
            forward::{ForwardPass, logps},
        },
    },
};
use plugin_api::{abi::DType, batch::names};

/// Estimated memory of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Bytes of device buffers that are held all the time: weights, gradients, moments and the models other than the policy.
    pub held: u64,
    /// Peak bytes of device buffers.
    pub peak: u64,
    /// The phase of the run in which the peak occurs.
    pub peak_in: &'static str,
    /// Peak bytes of the whole process, including the device's if the device is the processor. `None` if the system does not
    /// report a process's memory.
    pub process_peak: Option<u64>,
    /// Positions of the largest micro-batch.
    pub largest_micro_batch: usize,
}

/// A run's models without their values.
struct Counting<'a> {
    learner: &'a Learner,
    device: Device,
    policy: Model,
    roles: Roles,
    /// Whether rows carry the reference's log-probabilities.
    cached: bool,
    peak: u64,
    peak_in: &'static str,
}

/// Memory that the allocator keeps after it was freed, between blocks in use: these bytes, plus one part in [`KEPT_SHARE`] of
/// the working memory. Measured on runs of 25 to 925 MB, of 0.01 to 11 million parameters: 0.3 to 4.6 MB below 100 MB, 2%
/// above.
const KEPT: u64 = 2 << 20;
/// See [`KEPT`].
const KEPT_SHARE: u64 = 50;

/// Estimates the memory of `learner`'s run. Its device holds the models already, and the process has computed a batch.
///
/// # Errors
/// Errors of plugins; data that cannot be packed.
pub fn estimate(
    setup: &Setup,
    learner: &mut Learner,
    data: &TrainingData,
    evaluated: &Evaluated,
    marker: &CrashMarker,
) -> Result<MemoryEstimate> {
    let parts = learner.worst_micro_batches(marker)?;
    let largest = parts.iter().map(PackedBatch::len).max().unwrap_or(0);
    let learner = &*learner;
    let (device, counted) = SizesOnly::device(&learner.device)?;
    let cached = cacheable(data, &learner.objectives, learner.roles.reference.as_ref())?.is_some();
    let bases = Bases::default();
    let policy = bases.like(&device, &learner.model)?;
    let roles = roles(&device, setup, learner, &bases)?;
    let mut counting = Counting { learner, device, policy, roles, cached, peak: 0, peak_in: "training" };

    let _held = counting.rest(setup)?;
    let grads = counting.policy.flat_buffer()?;
    if cached {
        counting.reference_pass(&worst_reference_block(setup, &learner.objectives, &*data.train)?)?;
    }
    let held = counting.device.memory().in_use;
    for part in &parts {
        counting.training(part, &grads)?;
    }
    for one in &learner.auxiliary {
        let parts = one.worst_window(usize::MAX)?;
        for part in &parts {
            counting.step(
                &ForwardPass { models: counting.roles.models(&counting.policy), objectives: &one.objectives },
                part,
                &grads,
            )?;
        }
        counting.note("training");
    }
    if let Some(batch) = evaluated.held_out.iter().max_by_key(|batch| batch.len()) {
        counting.evaluation(batch)?;
    }
    counting.answers(setup, &evaluated.eval_prompts)?;
    let saving = counting.saving(setup)?;

    let bytes = |(_, buffer): (&str, &Buffer)| buffer.len() * buffer.dtype().size().unwrap_or(4) as u64;
    let piece = learner.optimizer.moments().into_iter().map(bytes).max().unwrap_or(0).min(PIECE);
    let (peak, peak_in) = (counting.peak, counting.peak_in);
    // If batch sizes keep changing, the spare buffers reach the pool's limit; otherwise they stay below it.
    let buffers = counted.most().max(peak + peak.saturating_sub(held) / 8);
    let process_peak = process_memory().map(|process| {
        let real = learner.device.memory();
        let on_processor = setup.experiment().backend.device == "cpu";
        let own = if on_processor { process.now.saturating_sub(real.in_use + real.cached) } else { process.now };
        // A checkpoint copies to the host, after the spare buffers were freed: a piece of the moments, or a tensor.
        let copied = saving.host.max(piece);
        let work = if on_processor { buffers.max(held + saving.device + copied) } else { copied };
        // The reference's log-probabilities: as computed, as bytes of a file, and per row; plus the rows it reads.
        let of_rows = |data: &dyn Examples| 3 * 8 * data.tokens() + 1024 * data.documents() as u64;
        let rows = if cached { of_rows(&*data.train) + of_rows(&*data.held_out) } else { 0 };
        (own + work + work / KEPT_SHARE + KEPT + rows).max(process.peak)
    });
    Ok(MemoryEstimate { held, peak, peak_in, process_peak, largest_micro_batch: largest })
}

/// Allocates the models other than the policy and what trains them.
fn roles(device: &Device, setup: &Setup, learner: &Learner, bases: &Bases) -> Result<Roles> {
    let critic = match &learner.roles.critic {
        Some(Critic { model, rate, .. }) => {
            let model = bases.like(device, model)?;
            let optimizer = optimizer::create(device, model.learned().table, &setup.experiment().train.optimizer)?;
            Some(Critic { grads: model.flat_buffer()?, model, optimizer, rate: *rate })
        }
        None => None,
    };
    let reference = match &learner.roles.reference {
        Some(Reference { model: Some(model), dropped_early, follow }) => {
            let model = Some(bases.like(device, model)?);
            Some(Reference { model, dropped_early: *dropped_early, follow: *follow })
        }
        _ => None,
    };
    let copy = |model: &Model| bases.like(device, model);
    let teacher = learner.roles.teacher.as_ref().map(copy).transpose()?;
    let context = match &learner.roles.context {
        Some(ContextModel::Frozen(model)) => Some(ContextModel::Frozen(Box::new(copy(model)?))),
        Some(ContextModel::Policy) => Some(ContextModel::Policy),
        None => None,
    };
    Ok(Roles { reference, teacher, context, critic })
}

impl Counting<'_> {
    fn note(&mut self, what: &'static str) {
        let peak = self.device.memory().peak;
        if peak > self.peak {
            (self.peak, self.peak_in) = (peak, what);
        }
    }

    fn pass(&self) -> ForwardPass<'_> {
        ForwardPass { models: self.roles.models(&self.policy), objectives: &self.learner.objectives }
    }

    /// Returns a batch as in a run: with the reference's log-probabilities if they are cached or measured with the rollout.
    fn joined(&self, packed: &PackedBatch) -> PackedBatch {
        let mut packed = packed.clone();
        if self.cached || (self.pass().needs().reference && self.pass().needs().rollouts) {
            packed.per_token.insert(names::REFERENCE_LOGP.to_owned(), vec![0.0; packed.len()]);
        }
        packed
    }

    /// Counts the reference's pass over a block of rows, then drops the reference, as a run does before its first step.
    fn reference_pass(&mut self, packed: &PackedBatch) -> Result<()> {
        if let Some(model) = self.roles.reference.as_ref().and_then(|role| role.model.as_ref()) {
            logps(model, packed, &supervised_rows(packed), self.learner.objectives.temperature())?;
        }
        self.note("the reference's pass over the data");
        if let Some(role) = &mut self.roles.reference {
            role.model = None;
        }
        Ok(())
    }

    /// The policy's optimizer, and the other buffers on the learner's device: reward models.
    fn rest(&self, setup: &Setup) -> Result<(Box<dyn Optimizer>, Buffer)> {
        let optimizer =
            optimizer::create(&self.device, self.policy.learned().table, &setup.experiment().train.optimizer)?;
        let grads = self.policy.learned().table.flat_len() * self.device.accumulator().size().unwrap_or(4) as u64;
        let counted = self.device.memory().in_use + grads;
        let other = self.learner.device.memory().in_use.saturating_sub(counted);
        Ok((optimizer, self.device.buffer(DType::I32, other / 4)?))
    }

    fn training(&mut self, packed: &PackedBatch, grads: &Buffer) -> Result<()> {
        self.step(&self.pass(), &self.joined(packed), grads)?;
        self.note("training");
        Ok(())
    }

    /// Counts a micro-batch forward and backward, with a cotangent for each statistic.
    fn step(&self, pass: &ForwardPass<'_>, packed: &PackedBatch, grads: &Buffer) -> Result<()> {
        let (needs, statistics, rows) = (pass.needs(), pass.objectives.statistics(), supervised_rows(packed));
        let (per_row, per_position) = (|| vec![0.0; rows.len()], || vec![0.0; packed.len()]);
        let sums = TokenCotangents {
            score: (needs.score || needs.token_score).then(per_position),
            value: needs.critic.then(per_position),
            head: Statistics::DIFFERENTIABLE
                .into_iter()
                .filter(|name| needs.tokens && statistics.has(name))
                .map(|name| (name, Some(per_row())))
                .collect(),
            ..compared(pass.objectives, rows.len())
        };
        let keep = Keep::ForBackward(self.learner.recompute);
        if pass.objectives.knows_cotangents(std::slice::from_ref(packed)) {
            let forward = pass.models.policy.forward(view(packed), keep)?;
            let (_, dhidden) =
                pass.models.policy.head_fused(&forward, &pass.request(packed, &rows), &sums.as_cotangents(), grads)?;
            return pass.models.policy.backward(forward, dhidden, grads);
        }
        pass.backward(pass.run(packed, keep)?, &sums, grads)
    }

    fn evaluation(&mut self, packed: &PackedBatch) -> Result<()> {
        self.pass().run(&self.joined(packed), Keep::Nothing)?;
        self.note("evaluation");
        Ok(())
    }

    /// Counts a checkpoint; of the roles, those that it contains.
    fn saving(&mut self, setup: &Setup) -> Result<Saving> {
        let checkpoint = &setup.experiment().checkpoint;
        let reference = self.roles.reference.as_ref().filter(|role| role.follow.is_some());
        let reference = reference.and_then(|role| role.model.as_ref());
        let others: Vec<&Model> =
            reference.into_iter().chain(self.roles.critic.as_ref().map(|one| &one.model)).collect();
        let saving = Saving::of(&self.device, &self.policy, &others, checkpoint.storage().dtype, checkpoint.merged)?;
        self.note("a checkpoint's merged model");
        Ok(saving)
    }

    /// Counts rollouts, answers to held-out prompts and samples.
    fn answers(&mut self, setup: &Setup, eval_prompts: &[EvalPrompt]) -> Result<()> {
        let experiment = setup.experiment();
        let mut all: Vec<(Vec<Vec<i32>>, usize)> = Vec::new();
        if let Some(rollout) = &experiment.rollout {
            let prompts = self.learner.longest_prompts(rollout.prompts);
            let repeated = prompts.iter().flat_map(|ids| vec![ids.clone(); rollout.samples]).collect();
            all.push((repeated, rollout.max_new_tokens));
        }
        if !eval_prompts.is_empty() {
            let options = sampling(experiment, eval_prompts);
            let longest = eval_prompts.iter().map(EvalPrompt::answer_length).max().unwrap_or(0);
            let prompts: Vec<Vec<i32>> = eval_prompts.iter().map(|prompt| ids(&prompt.prompt().ids)).collect();
            if let Some(pass) = &experiment.eval.pass {
                // Equal prompts are computed once, so that the copies of pass@k are less work than as many other prompts.
                let answered = eval_prompts.iter().filter(|prompt| prompt.has_answer());
                let samples = pass.samples.min(generate::SLOTS);
                let copies = answered.flat_map(|prompt| std::iter::repeat_n(ids(&prompt.prompt().ids), samples));
                all.push((copies.collect(), options.max_tokens.max(longest)));
            }
            all.push((prompts, options.max_tokens.max(longest)));
        }
        if let Some(sample) = &experiment.sample {
            let prompts = sample.prompts.iter().map(|prompt| Ok(ids(&setup.tokenizer.encode_input(prompt)?)));
            all.push((prompts.collect::<Result<_>>()?, sample.max_tokens));
        }
        for (prompts, max_tokens) in all.iter().filter(|(prompts, _)| !prompts.is_empty()) {
            generate::reach_peak_memory(&self.policy, prompts, *max_tokens)?;
            self.note("generation");
        }
        Ok(())
    }
}

/// Returns a cotangent for each statistic that compares the policy with a frozen model.
fn compared(objectives: &Objectives, rows: usize) -> TokenCotangents {
    let (own, count) =
        (objectives.reads(None), objectives.candidates().map_or(0, |candidates| candidates.count as usize));
    TokenCotangents {
        kl: Frozen::ALL
            .into_iter()
            .filter(|role| objectives.reads(Some(*role)).kl)
            .map(|role| (role, Some(vec![0.0; rows])))
            .collect(),
        candidates: own.candidates.then(|| vec![0.0; rows * count]),
        tail: own.tail.then(|| vec![0.0; rows]),
        ..TokenCotangents::default()
    }
}

fn ids(tokens: &[u32]) -> Vec<i32> {
    tokens.iter().map(|id| *id as i32).collect()
}

/// Returns the largest batch that the reference's pass computes at a time.
fn worst_reference_block(setup: &Setup, objectives: &Objectives, train: &dyn Examples) -> Result<PackedBatch> {
    Ok(pack(&all_rows(setup, objectives, train).worst(reference_pass::BLOCK))?)
}
