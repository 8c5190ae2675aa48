//! How many positions a micro-batch has if the experiment does not say it.

use crate::{
    config::experiment::{self, SHARED},
    device::open::dtype,
    model::{Recompute, kept_bytes},
    objectives::Objectives,
    setup::Setup,
};

/// The most positions of a micro-batch.
pub const MOST: usize = 16384;

/// The least that the size of a model reduces them to: products of fewer rows are slow.
const LEAST: usize = 256;

/// Bytes of activations that a micro-batch keeps on the processor. Larger micro-batches are no faster there.
const KEPT: u64 = 512 << 20;

/// Returns `train.micro_batch_tokens`, or else the number of positions whose activations take [`KEPT`] bytes at most, for the policy
/// and a critic of the policy's size, if nothing is recomputed; on other devices than the processor always [`MOST`]. `train.recompute`
/// plays no part: the micro-batches decide the order of sums, and it must not change a bit.
pub fn micro_batch_tokens(setup: &Setup, objectives: &Objectives) -> usize {
    let experiment = setup.experiment();
    if let Some(tokens) = experiment.train.micro_batch_tokens {
        return tokens;
    }
    if experiment.backend.device != "cpu" {
        return MOST;
    }
    let own_critic = objectives.needs().critic && experiment.critic.as_ref().is_none_or(|critic| critic.from != SHARED);
    let position = kept_bytes(&setup.config, dtype(experiment.backend.dtype));
    fitting(position * (1 + u64::from(own_critic)))
}

/// The number of positions whose activations take [`KEPT`] bytes at most, if one takes `position` bytes.
fn fitting(position: u64) -> usize {
    ((KEPT / position.max(1)) as usize).clamp(LEAST, MOST)
}

/// Returns which activations the model recomputes, from the word in the experiment.
pub fn recompute(word: experiment::Recompute) -> Recompute {
    match word {
        experiment::Recompute::None => Recompute::None,
        experiment::Recompute::Auto => Recompute::Auto,
        experiment::Recompute::All => Recompute::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a limit that small models notice, a large model whose micro-batch has no positions, and bytes counted as numbers.
    #[test]
    fn large_models_have_small_micro_batches() {
        assert_eq!(fitting(1000), MOST);
        assert_eq!(fitting(1 << 20), 512);
        assert_eq!(fitting(1 << 30), LEAST);
    }
}
