//! The attention mask that the objectives require of the policy, and what it rules out.
//!
//! The reference and the critic of a run read sequences with the policy's mask. Teachers, a context of its own and reward models keep
//! the mask that they were trained with.

use plugin_api::manifest::AttentionMask;

use crate::{config::Mistakes, objectives::Objectives, setup::Setup};

/// Refuses a model that was trained with another mask, and generation by a bidirectional policy.
pub fn check(setup: &Setup, objectives: &Objectives, mistakes: &mut Mistakes) {
    let (experiment, wanted, own) = (setup.experiment(), objectives.attention(), &setup.config.attention);
    let key = setup.start_key();
    if *own != AttentionMask::CAUSAL && own != wanted && mistakes.are_free(&[key]) {
        let why = format!(
            "trained with the attention mask {own}, but the objective requires {wanted}; choose an objective, or an option of it, \
             that requires {own} (such as sft with attention = \"prefix\"), or another model"
        );
        mistakes.refuse(key, why);
    }
    // The operation hides only keys before a query's window, so that a token would see far tokens behind it, but not far ones before.
    if *wanted != AttentionMask::CAUSAL && !setup.config.windows.is_empty() && mistakes.are_free(&["model"]) {
        let why = format!(
            "has a sliding window, and the objective requires the attention mask {wanted}: a window is implemented for causal attention \
             alone; choose another model, or an option of the objective that requires causal"
        );
        mistakes.refuse("model", why);
    }
    if *wanted != AttentionMask::BIDIRECTIONAL {
        return;
    }
    for (key, given) in [
        ("eval.generate", experiment.eval.generate.is_some()),
        ("sample.prompts", experiment.sample.is_some()),
        ("rollout", objectives.needs().rollouts),
    ] {
        if given && mistakes.are_free(&[key]) {
            let why = "impossible: the objective requires the attention mask bidirectional, with which a token depends on those \
                       after it, so that the policy cannot continue a text; leave it out";
            mistakes.refuse(key, why);
        }
    }
}

/// Refuses a reference or critic that was trained with another mask than the policy's, which it is to read with.
pub fn check_role(key: &str, own: &AttentionMask, objectives: &Objectives, mistakes: &mut Mistakes) {
    let wanted = objectives.attention();
    if *own != AttentionMask::CAUSAL && own != wanted && mistakes.are_free(&[key]) {
        let why = format!("trained with the attention mask {own}, but reads with the policy's, {wanted}");
        mistakes.refuse(key, why);
    }
}

/// Refuses an objective with its own text whose mask is not the policy's.
pub fn check_own_text(objectives: &Objectives, own_text: &Objectives, key: &str, mistakes: &mut Mistakes) {
    let (wanted, other) = (objectives.attention(), own_text.attention());
    if wanted != other && mistakes.are_free(&[key]) {
        let why = format!("requires the attention mask {other}, and the first objective {wanted}: a policy has one");
        mistakes.refuse(key, why);
    }
}
