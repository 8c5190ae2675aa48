//! Arrays of single rewards that objectives read by name: each must come from a reward of the experiment.

use plugin_api::batch::names;
use serde_json::Value as Json;

use super::rewards::Rewards;
use crate::{
    config::{Mistakes, experiment::reward_names},
    objectives::{Objectives, active::Active},
    setup::Setup,
};

/// Refuses objectives that read a reward that the experiment lacks.
pub(super) fn check_names(setup: &Setup, objectives: &Objectives, refuse: &mut impl FnMut(&str, String)) {
    let rewards = reward_names(&setup.experiment().reward);
    let is_missing = |array: &&String| reward_of(array, &rewards).is_none();
    for active in objectives.iter() {
        let Some(array) = active.requirements.reward_names.iter().find(is_missing) else { continue };
        // A name may end with a number: the second reward of a plugin is its id and `.1`.
        let part = |(_, last): &(&str, &str)| last.parse::<usize>().is_err();
        let name = array.rsplit_once('.').filter(part).map_or(array.as_str(), |(name, _)| name);
        let there = if rewards.is_empty() { "none".to_owned() } else { rewards.join(", ") };
        let prefixed = array.strip_prefix(names::REWARD_OF).filter(|rest| reward_of(rest, &rewards).is_some());
        let hint = prefixed.map(|rest| format!("; its requirements must name it \"{rest}\"")).unwrap_or_default();
        refuse(
            &key(setup, active, array, Some(name)),
            format!("objective \"{}\" reads the reward \"{name}\"; there are: {there}{hint}", active.id),
        );
    }
}

impl Rewards {
    /// Refuses objectives that read a part or the numbers per token of a reward that does not give them.
    pub fn check_arrays(&self, setup: &Setup, objectives: &Objectives, mistakes: &mut Mistakes) {
        let rewards = reward_names(&setup.experiment().reward);
        let given = self.arrays();
        for active in objectives.iter() {
            for array in active.requirements.reward_names.iter().filter(|array| !given.contains(array)) {
                let part = array.rsplit_once('.').map(|(_, part)| part);
                let key = key(setup, active, array, part);
                let Some(reward) = reward_of(array, &rewards).filter(|_| mistakes.are_free(&[&key])) else { continue };
                let own = |given: &&String| reward_of(given, &rewards) == Some(reward);
                let own: Vec<String> = given.iter().filter(own).map(|array| format!("`reward.{array}`")).collect();
                let why = format!(
                    "objective \"{}\" reads `reward.{array}`, but the reward \"{reward}\" gives only: {}",
                    active.id,
                    own.join(", ")
                );
                mistakes.refuse(&key, why);
            }
        }
    }
}

/// The reward whose array this is: the one of this name, or of the name before the last dot.
fn reward_of<'r>(array: &str, rewards: &'r [String]) -> Option<&'r str> {
    let named = |name: &str| rewards.iter().find(|reward| *reward == name).map(String::as_str);
    named(array).or_else(|| array.rsplit_once('.').and_then(|(name, _)| named(name)))
}

/// The key of the option whose value names the array or one of its parts, the whole array before the part that is `missing`, and that
/// before the others.
fn key(setup: &Setup, active: &Active, array: &str, missing: Option<&str>) -> String {
    let table = setup.loaded.key_of("objective", active.table);
    let (name, part) = array.rsplit_once('.').unwrap_or((array, array));
    let wanted = [Some(array), missing, Some(name), Some(part)];
    let keys = wanted.into_iter().flatten().map(|wanted| {
        let is_meant =
            |value: &Json| value == wanted || value.as_array().is_some_and(|list| list.iter().any(|one| one == wanted));
        setup.loaded.option_key(active.table, |_, value| is_meant(value))
    });
    keys.into_iter().find(|key| *key != table).unwrap_or(table)
}
