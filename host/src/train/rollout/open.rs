//! The rollouts of an experiment: which rewards, prompts and lengths they need, checked before the first one is drawn.

use plugin_api::manifest::GivenNumber;

use super::{RolloutSettings, Rollouts, single_rewards};
use crate::{
    config::{Mistakes, experiment},
    data::TrainingData,
    objectives::Objectives,
    setup::Setup,
    train::memory::largest_rows::forward_tokens,
};

impl Rollouts {
    /// Refuses rewards and rollouts that are missing, unused or impossible.
    pub fn check_keys(setup: &Setup, objectives: &Objectives, mistakes: &mut Mistakes) {
        let experiment = setup.experiment();
        let is_free = mistakes.are_free(&["eval.generate"]);
        let mut refuse = |key: &str, why: String| {
            if mistakes.are_free(&[key]) {
                mistakes.refuse(key, why);
            }
        };
        if !objectives.needs().rollouts {
            if !experiment.reward.is_empty() && experiment.eval.generate.is_none() && is_free {
                let why = "unused: the policy answers no prompts; give eval.generate, for example 200, to score answers to held-out prompts";
                refuse("reward", why.to_owned());
            }
            return;
        }
        let reads_rewards = objectives.iter().any(|active| active.requirements.rewards);
        if reads_rewards && experiment.reward.iter().all(|reward| reward.weight == 0.0) {
            let why = "missing: rollouts need a reward with a weight other than 0; for example [[reward]] with plugin = \"length\"";
            refuse("reward", why.to_owned());
        }
        single_rewards::check_names(setup, objectives, &mut refuse);
        let experiment::Batch::Prompts(prompts) = experiment.train.batch else {
            return refuse(
                "train.batch",
                "rollouts need a batch in prompts; for example batch = { prompts = 16 }".to_owned(),
            );
        };
        let Some(settings) = &experiment.rollout else {
            let why = "missing: the objective learns from the policy's own answers; for example [rollout] with prompts = 64 and max_new_tokens = 32";
            return refuse("rollout", why.to_owned());
        };
        for active in objectives.iter().filter(|active| active.requirements.samples > settings.samples as u64) {
            let (least, given, id) = (active.requirements.samples, settings.samples, &active.id);
            refuse(
                "rollout.samples",
                format!("{given}, but objective \"{id}\" needs at least {least} answers to each prompt"),
            );
        }
        if settings.max_prompts.is_some() && objectives.iter().all(|active| !active.requirements.requests) {
            let why = "unused: no objective requests more prompts than rollout.prompts under its options; leave it out";
            refuse("rollout.max_prompts", why.to_owned());
        }
        for active in objectives.iter() {
            let Some(GivenNumber { number, option }) = &active.requirements.max_new_tokens else { continue };
            if *number != settings.max_new_tokens as u64 {
                let (table, given) = (setup.loaded.key_of("objective", active.table), settings.max_new_tokens);
                let (key, remedy) = match option.as_str() {
                    "" => (table, format!("set rollout.max_new_tokens = {number}")),
                    option => (format!("{table}.{option}"), "give both the same value".to_owned()),
                };
                let why = format!(
                    "{number}, but rollout.max_new_tokens = {given}: the loss is computed for the longest possible answer; {remedy}"
                );
                refuse(&key, why);
            }
        }
        if !settings.prompts.is_multiple_of(prompts) {
            let why = format!("{} is not a multiple of train.batch.prompts = {prompts}", settings.prompts);
            refuse("rollout.prompts", why);
        }
        if let Some(why) = Self::no_room(setup, settings) {
            refuse("rollout.max_new_tokens", why);
        }
    }

    /// Why no prompt fits before the longest answer, if none does.
    pub fn no_room(setup: &Setup, settings: &experiment::Rollout) -> Option<String> {
        let (longest, context) = (settings.max_new_tokens, setup.config.context);
        let why = || format!("{longest} tokens leave no room for a prompt in a context of {context}");
        (longest as u64 >= context).then(why)
    }

    /// Creates the rollouts of an experiment that has passed [`Rollouts::check_keys`]; `None` if its objectives do not learn from
    /// the policy's own answers.
    pub fn open(setup: &Setup, objectives: &Objectives, data: &TrainingData) -> Option<Rollouts> {
        let experiment = setup.experiment();
        let experiment::Batch::Prompts(prompts) = experiment.train.batch else { return None };
        let settings = experiment.rollout.clone().filter(|_| objectives.needs().rollouts)?;
        Some(Rollouts::new(RolloutSettings {
            settings,
            prompts,
            seed: experiment.seed,
            tokens: forward_tokens(setup, objectives, &*data.train),
            tokenizer: setup.tokenizer.clone(),
            data: data.train.clone(),
        }))
    }
}
