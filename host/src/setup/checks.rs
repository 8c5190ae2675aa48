//! Checks that plugins, model and memory can do what the experiment asks for; errors name the key.
//!
//! Sizes are checked before anything is allocated. Each size is a lower bound, so that nothing is refused that would fit.

use plugin_api::manifest::BackendManifest;

use super::{Setup, named::AdapterStart};
use crate::{
    capacity,
    config::{
        Loaded, Mistakes,
        experiment::{Batch, Length, Model as ModelSource},
    },
    data::TrainingData,
    device::open::dtype,
    error::{Result, refusal_text},
    model::{self, Copies, ModelConfig, adapter::Shape, params::Layout},
};

/// Bytes of a generated example: its texts, columns and tokens.
const EXAMPLE: u64 = 1024;
/// Minimum bytes of a position of a step: its id, position and target, and whether it is supervised.
const POSITION: u64 = 16;
/// Bytes of a sequence of a step in addition to its positions.
const SEQUENCE: u64 = 512;
/// The most rows that are counted to find the number of steps of the epochs.
const MOST_READ: f64 = (1_u64 << 32) as f64;

impl Setup {
    /// Refuses more generated examples than memory can hold.
    pub(crate) fn check_examples(&self, key: &str, count: u64) -> Result<()> {
        let needs = capacity::check(count.saturating_mul(EXAMPLE));
        needs.map_err(|why| self.loaded.refuse(key, format!("{count} generated examples: {why}; generate fewer")))
    }

    /// Refuses a step whose rows do not fit into memory, and epochs that cannot be counted.
    pub(crate) fn check_window(&self, data: &TrainingData) -> Result<()> {
        let experiment = self.experiment();
        let (context, rows) = (self.config.context, data.train.documents() as u64);
        let usual = data.train.usual_length(experiment.longest_sequence(context as usize)) as u64;
        let in_epochs = match experiment.train.length {
            Length::Steps(_) => false,
            Length::Epochs(epochs) if epochs.ceil() * rows as f64 > MOST_READ => {
                let why = format!("{epochs} passes over {rows} rows are too many to count; give train.steps instead");
                return Err(self.loaded.refuse("train.epochs", why));
            }
            Length::Epochs(_) => true,
        };
        // With epochs, a step never contains a row twice.
        let most = |count: u64, of: u64| if in_epochs { count.min(of) } else { count };
        let (key, what, sequences, length) = match (experiment.train.batch, &experiment.rollout) {
            (Batch::Tokens(n), _) => ("train.batch.tokens", "tokens", most(n as u64, data.train.tokens()), 1),
            (Batch::Sequences(n), _) => ("train.batch.sequences", "sequences", most(n as u64, rows.max(1)), usual),
            (Batch::Pairs(n), _) => ("train.batch.pairs", "pairs", most(n as u64, rows), usual),
            (Batch::Prompts(_), Some(rollout)) => {
                let answers = most(rollout.prompts as u64, rows).saturating_mul(rollout.samples as u64);
                ("rollout.prompts", "answers in a rollout", answers, shortest_answered(usual, context))
            }
            (Batch::Prompts(n), None) => ("train.batch.prompts", "prompts", most(n as u64, rows), usual),
        };
        let positions = sequences.saturating_mul(length);
        let refuse = |why: String| Err(self.loaded.refuse(key, format!("{sequences} {what}: {why}; take fewer")));
        // Offsets are passed to plugins as 32-bit integers.
        if positions > i32::MAX as u64 {
            return refuse(format!("{positions} tokens at once, and at most {} can be", i32::MAX));
        }
        let of_sequences = if length > 1 { sequences.saturating_mul(SEQUENCE) } else { 0 };
        capacity::check(positions.saturating_mul(POSITION).saturating_add(of_sequences)).or_else(refuse)
    }

    /// If the device is the processor, refuses a model that does not fit into memory together with its gradient and moments.
    pub(crate) fn check_model(&self) -> Result<()> {
        let backend = &self.experiment().backend;
        if backend.device != "cpu" {
            return Ok(());
        }
        let key = match self.experiment().model {
            ModelSource::From { .. } => "model.from",
            ModelSource::Shape(_) => "model",
        };
        let trained = || Copies::Trained(copies(&self.experiment().train.length));
        let copies = if self.adapter.is_some() { Copies::Frozen } else { trained() };
        let (count, bytes) = model::size(&self.config, dtype(backend.dtype), copies)?;
        capacity::check(bytes).map_err(|why| {
            let what = format!("{count} parameters and a context length of {} tokens", self.config.context);
            self.loaded.refuse(key, format!("{what}: {why}; make the model smaller"))
        })?;
        let Some(AdapterStart::Fresh(settings)) = &self.adapter else { return Ok(()) };
        let shape = Shape::new(&Layout::new(&self.config)?, settings, None);
        let shape = shape.map_err(|e| self.loaded.refuse("model.lora.targets", refusal_text(&e)))?;
        // Values, gradient and two moments.
        capacity::check(4 * 4 * shape.table.flat_len()).map_err(|why| {
            let what = format!("{} trained parameters", shape.table.count());
            self.loaded.refuse("model.lora.rank", format!("{what}: {why}; lower the rank"))
        })
    }

    /// Checks that the model can read every prompt of `[sample]`.
    ///
    /// # Errors
    /// A request error for a prompt that is empty or longer than the context.
    pub fn check_samples(&self) -> Result<()> {
        let mut mistakes = self.loaded.mistakes();
        for prompt in self.experiment().sample.iter().flat_map(|sample| &sample.prompts) {
            let (tokens, context) = (self.tokenizer.encode_input(prompt)?.len() as u64, self.config.context);
            if tokens > context || tokens == 0 {
                let why =
                    format!("\"{prompt}\" has {tokens} tokens, expected 1 to {context}, the model's context length");
                mistakes.refuse("sample.prompts", why);
            }
        }
        mistakes.finish()
    }
}

/// Refuses rows and contexts that are longer than the model's context length.
pub(super) fn check_lengths(loaded: &Loaded, config: &ModelConfig, mistakes: &mut Mistakes) {
    let max_length = loaded.experiment.data.source().writing().max_length.filter(|most| *most as u64 > config.context);
    let longest = loaded.experiment.longest_sequence(config.context as usize);
    let longest = Some(longest).filter(|longest| *longest as u64 > config.context);
    for (key, length) in [("data.max_length", max_length), ("train.context_schedule", longest)] {
        if let Some(length) = length.filter(|_| mistakes.are_free(&[key])) {
            let why = format!("{length} tokens are longer than the model's context length of {}", config.context);
            mistakes.refuse(key, why);
        }
    }
}

/// Refuses a dtype in which the backend does not compute.
pub(super) fn check_dtype(loaded: &Loaded, backend: &BackendManifest) -> Result<()> {
    let wanted = dtype(loaded.experiment.backend.dtype).to_string();
    if backend.dtypes.contains(&wanted) {
        return Ok(());
    }
    Err(loaded.refuse(
        "backend.dtype",
        format!("backend \"{}\" computes in {}, not in {wanted}", backend.id, backend.dtypes.join(", ")),
    ))
}

/// Positions of a prompt of `prompt` tokens with the shortest answer: the lengths of answers are not known in advance.
fn shortest_answered(prompt: u64, context: u64) -> u64 {
    prompt.saturating_add(1).min(context)
}

/// How many copies of the parameters memory holds: weights, gradient and two moments; only the first two if no step is trained,
/// because the system provides memory only when it is written.
fn copies(length: &Length) -> u64 {
    if *length == Length::Steps(0) { 2 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a rollout that is refused for answers as long as `rollout.max_new_tokens`, which few answers are.
    #[test]
    fn answers_are_counted_at_their_shortest() {
        assert_eq!(shortest_answered(20, 1 << 20), 21);
        assert_eq!(shortest_answered(64, 64), 64);
    }

    /// Catches a model that is refused because of an optimizer's moments although no step is trained.
    #[test]
    fn a_run_without_steps_needs_no_moments() {
        assert_eq!(copies(&Length::Steps(0)), 2);
        assert_eq!(copies(&Length::Steps(1)), 4);
        assert_eq!(copies(&Length::Epochs(0.5)), 4);
    }
}
