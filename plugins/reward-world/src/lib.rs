//! The gold reward of the quickstart world: 1 for exactly the right answer, up to 0.6 for the right one among other words, 0 for
//! anything else. The rule is [`telos_world::gold`], which uses only the prompt's text.

use plugin_api::prelude::*;
use telos_world::gold;

/// The true reward of a completion.
pub struct World;

impl RewardPlugin for World {
    type Options = ();

    fn manifest() -> RewardManifest {
        RewardManifest {
            summary: "The true reward of the quickstart world, from the prompt's text: 0 to 1".into(),
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(World)
    }
}

impl Reward for World {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let foreign = |prompt: &str| {
            Error::invalid(format!(
                "{prompt:?} is not an instruction of the quickstart world; score it by another reward"
            ))
        };
        samples
            .iter()
            .map(|sample| gold(&sample.prompt, &sample.completion).ok_or_else(|| foreign(&sample.prompt)))
            .collect()
    }
}

export_reward!("world", World);
