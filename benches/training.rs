//! One training step of an experiment on a backend, as the trainer runs it: window, objective, gradient, norm, AdamW. Tokens are
//! random ids over the whole vocabulary, so that no data is read and every row of the embedding is used.

use std::path::{Path, PathBuf};

use plugin_api::abi::Memory;
use telos::{
    compare::spec::Spec,
    config::{Draft, Override, experiment::Batch},
    data::{PackedBatch, Sequence, Window},
    device::{Buffer, Device, profile::Record},
    error::Result,
    model::{Model, ModelConfig, Outputs, Recompute},
    objectives::{Objectives, micro_batch::cut},
    optimizer::{self, kind::Optimizer},
    plugins::Pinning,
    runs::breadcrumb::CrashMarker,
    setup::{Setup, loading::prepare},
    train::{memory::micro_batch::micro_batch_tokens, roles::Roles, step::gradient::TrainedModels},
};

use telos_random::SplitMix64;
/// Number of different windows that the steps use in turn.
const WINDOWS: u64 = 4;

/// A model on a backend, ready to be trained.
pub struct Training {
    device: Device,
    record: Option<Record>,
    model: Model,
    roles: Roles,
    grads: Buffer,
    optimizer: Box<dyn Optimizer>,
    objectives: Objectives,
    windows: Vec<Vec<PackedBatch>>,
    marker: CrashMarker,
    lr: f64,
    steps: usize,
}

/// An experiment on another backend, its plugins loaded.
///
/// # Errors
/// A request error for a wrong experiment, plugin or option.
pub fn setup(file: &Path, spec: &Spec, sets: &[Override], folders: &[PathBuf]) -> Result<Setup> {
    let mut overrides = sets.to_vec();
    // An experiment that cannot be read has no backend; `prepare` reports its mistakes.
    if let Some(written) = Draft::read(file, sets)?.backend() {
        overrides.extend(spec.overrides(written));
    }
    // Nothing is written there, and a lock in the user's own folder of runs is not read.
    let runs = std::env::temp_dir().join("telos-bench-runs");
    overrides.push(Override::text("bench", "runs_dir", &runs.to_string_lossy()));
    prepare(file, &overrides, folders, Pinning::Update)
}

/// Figures of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// The loss before the update, in nats per token.
    pub loss: f64,
    /// The gradient's norm before clipping.
    pub grad_norm: f64,
}

impl Training {
    /// Puts the experiment's model on its backend, with fresh weights. With `profile`, operations are timed.
    ///
    /// # Errors
    /// As for a run: a request error for a device that does not exist; memory.
    pub fn open(setup: &Setup, profile: bool) -> Result<Training> {
        let objectives = setup.objectives()?;
        let (device, record) = setup.device(profile)?;
        let model = setup.model(&device, None, Outputs::TOKENS)?;
        let train = &setup.experiment().train;
        let optimizer = optimizer::create(&device, model.layout(), &train.optimizer)?;
        let grads = model.flat_buffer()?;
        let most = micro_batch_tokens(setup, &objectives);
        let windows =
            (0..WINDOWS).map(|seed| cut(&window(&setup.config, train.batch, seed)?, most)).collect::<Result<_>>()?;
        let (lr, marker) = (train.optimizer.lr, CrashMarker::default());
        let roles = Roles::default();
        Ok(Training { device, record, model, roles, grads, optimizer, objectives, windows, marker, lr, steps: 0 })
    }

    /// One step.
    ///
    /// # Errors
    /// The plugins' own.
    pub fn step(&mut self) -> Result<Figures> {
        let micro_batches = &self.windows[self.steps % self.windows.len()];
        self.steps += 1;
        self.model.zero(&self.grads)?;
        let (model, roles, grads) = (&self.model, &self.roles, &self.grads);
        let trained = TrainedModels { models: roles.models(model), recompute: Recompute::None, grads };
        let out = trained.accumulate(&mut self.objectives, micro_batches, &self.marker)?;
        let gradient = self.optimizer.measure(grads)?;
        self.optimizer.update(model.params(), model.shadow(), grads, self.lr)?;
        Ok(Figures { loss: out.loss, grad_norm: gradient.norm })
    }

    /// Waits for all work.
    ///
    /// # Errors
    /// What the work failed with.
    pub fn sync(&self) -> Result<()> {
        self.device.sync()
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> usize {
        self.windows.first().into_iter().flatten().map(PackedBatch::len).sum()
    }

    /// Sequences of a step.
    pub fn sequences(&self) -> usize {
        self.windows.first().into_iter().flatten().map(PackedBatch::sequences).sum()
    }

    /// Times of the operations, if they are recorded.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Memory of the backend's session.
    pub fn memory(&self) -> Memory {
        self.device.memory()
    }

    /// Parameters: all of them, and those that a token is multiplied with (an untied embedding and learned positions
    /// are only looked up).
    pub fn parameters(&self) -> (u64, u64) {
        let config = self.model.config();
        let all = self.model.layout().count();
        let positions = if config.family.names.positions.is_some() { config.context * config.dim } else { 0 };
        let embedding = if config.tied { 0 } else { config.vocab * config.dim };
        (all, all - positions - embedding)
    }

    /// Floating-point operations per token and step: 6 for each parameter that a token is multiplied with, and causal
    /// attention over a full context (two products forward, four backward, half of the pairs).
    pub fn flops_per_token(&self) -> f64 {
        let config = self.model.config();
        let attention = 6 * config.layers * config.query_width() * config.context;
        (6 * self.parameters().1 + attention) as f64
    }
}

/// A window of random tokens: every sequence as long as the model's context.
fn window(config: &ModelConfig, batch: Batch, seed: u64) -> Result<Window> {
    let length = config.context as usize;
    let sequences = match batch {
        Batch::Sequences(n) | Batch::Pairs(n) | Batch::Prompts(n) => n,
        Batch::Tokens(n) => (n / length).max(1),
    };
    let mut random = SplitMix64::new(seed);
    let mut sequence = |row| Sequence {
        ids: (0..=length).map(|_| (random.bits() % config.vocab) as u32).collect(),
        supervised: vec![true; length + 1],
        row,
        ..Default::default()
    };
    Ok(Window::new((0..sequences as u64).map(&mut sequence).collect())?)
}
