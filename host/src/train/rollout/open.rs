//! The rollouts of an experiment: which rewards, prompts and lengths they need, checked before the first one is drawn.

use super::{RolloutSettings, Rollouts, rewards::Rewards};
use crate::{
    config::experiment, data::TrainingData, error::Result, objectives::Objectives, setup::Setup,
    train::memory::largest_rows::forward_tokens,
};

impl Rollouts {
    /// Creates the rollouts of an experiment; `None` if its objectives do not learn from the policy's own answers.
    ///
    /// # Errors
    /// A request error for rewards or rollouts that are missing, unused or impossible.
    pub fn open(
        setup: &Setup,
        objectives: &Objectives,
        rewards: &Rewards,
        data: &TrainingData,
    ) -> Result<Option<Rollouts>> {
        let experiment = setup.experiment();
        if !objectives.needs().rollouts {
            if !rewards.is_empty() && experiment.eval.generate.is_none() {
                let why = "unused: the policy answers no prompt; with eval.generate = 200, for example, rewards score answers to held-out prompts";
                return Err(setup.loaded.refuse("reward", why));
            }
            return Ok(None);
        }
        let Some(settings) = experiment.rollout.clone() else {
            let why = "missing: the objective learns from the policy's own answers; for example [rollout] with prompts = 64 and max_new_tokens = 32";
            return Err(setup.loaded.refuse("rollout", why));
        };
        if !rewards.any_weighted() {
            let why = "missing: rollouts need a reward with a weight other than 0; for example [[reward]] with plugin = \"length\"";
            return Err(setup.loaded.refuse("reward", why));
        }
        let experiment::Batch::Prompts(prompts) = experiment.train.batch else {
            return Err(setup
                .loaded
                .refuse("train.batch", "rollouts come in prompts; for example batch = { prompts = 16 }"));
        };
        if !settings.prompts.is_multiple_of(prompts) {
            let why = format!("{} is not a multiple of train.batch.prompts = {prompts}", settings.prompts);
            return Err(setup.loaded.refuse("rollout.prompts", why));
        }
        if settings.max_new_tokens as u64 >= setup.config.context {
            let why = format!(
                "{} tokens leave no room for a prompt in a context of {}",
                settings.max_new_tokens, setup.config.context
            );
            return Err(setup.loaded.refuse("rollout.max_new_tokens", why));
        }
        Ok(Some(Rollouts::new(RolloutSettings {
            settings,
            prompts,
            seed: experiment.seed,
            tokens: forward_tokens(setup, objectives, &*data.train),
            tokenizer: setup.tokenizer.clone(),
            data: data.train.clone(),
        })))
    }
}
