//! `[[reward]]`: scores of answers.

use std::ops::Bound::Unbounded;

use plugin_api::contract::is_reward_name;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::keys::notes::Notes;
use crate::keys::tree::keys_of;
use crate::keys::{Form, table, words};

table! {
    /// scores answers: one table, or several [[reward]], whose weighted sum is the reward of rollouts; each also scores
    /// the answers of eval.generate; further keys are options of the plugin
    pub struct Written at "reward": Form::Plugins, example { plugin = "length" } {
        /// id of a reward plugin; give either this or model
        plugin: String, Form::Text, example "world";
        /// a trained reward model: a run, a checkpoint or a Hugging Face folder; give either this or plugin
        model: String, Form::Text, example "runs/reward";
        /// its name in metrics and arrays: letters, digits, _ and -, but not a number and not token; no two rewards have the same
        name: String, Form::Text, default "the plugin's id, or model; a second one has .1 after it", example "brevity";
        /// factor in the reward of rollouts; 0: only reported
        weight: f64 = 1.0, Form::Float(Unbounded, Unbounded), example 0.5;
        /// with model: subtract the mean and divide by the standard deviation of the scores that its training recorded
        normalise: bool = false, Form::Bool, example true;
        /// with a process reward model: how the probabilities that the answer is right after each of its segments become its score: min, mean or
        /// last
        aggregate: Aggregate, Form::Word(Aggregate::WORDS), default "\"min\"", example "mean";
    }
}

words! {
    /// How the scores of an answer's segments become one number.
    pub enum Aggregate {
        /// The smallest: an answer is as good as its worst segment.
        Min = "min",
        /// Their mean.
        Mean = "mean",
        /// That of the last segment.
        Last = "last",
    }
}

/// One `[[reward]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reward {
    /// The plugin or model that computes it.
    #[serde(flatten)]
    pub source: RewardSource,
    /// Its name, where the experiment gives one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Factor in the reward of rollouts.
    pub weight: f64,
    /// Whether a model's scores are normalised with the scale that its training recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub normalise: bool,
    /// How a process reward model's scores of segments become the answer's score; absent: min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// The plugin's own options, checked and with defaults filled in.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// The source of a reward.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RewardSource {
    /// A plugin.
    Plugin {
        /// Its id.
        plugin: String,
    },
    /// A trained reward model.
    Model {
        /// Its folder.
        model: String,
    },
}

/// Resolves all `[[reward]]`.
pub fn resolve(written: Vec<Written>, notes: &mut Notes<'_>) -> Vec<Reward> {
    let keys = keys_of("reward", notes.root, written.len());
    let mut one = |reward: Written, key: &str| {
        if reward.plugin.is_some() && reward.model.is_some() {
            notes.refuse(&format!("{key}.model"), format!("contradicts {key}.plugin: give one of them"));
        }
        let (weight, normalise, aggregate) = (reward.weight(), reward.normalise(), reward.aggregate);
        let source = match (reward.plugin, reward.model) {
            (Some(plugin), _) => {
                let why = "only a model's scores have a recorded scale";
                notes.unused(&format!("{key}.normalise"), &reward.normalise, why);
                notes.unused(
                    &format!("{key}.aggregate"),
                    &reward.aggregate,
                    "only process reward models score segments of answers",
                );
                RewardSource::Plugin { plugin }
            }
            (None, Some(model)) => RewardSource::Model { model },
            (None, None) => {
                let why = "a plugin or a model is needed; for example plugin = \"length\", or model = \"runs/reward\"";
                notes.missing(&format!("{key}.plugin"), why);
                RewardSource::Plugin { plugin: String::new() }
            }
        };
        Reward { source, name: reward.name, weight, normalise, aggregate, options: Default::default() }
    };
    let rewards: Vec<Reward> = written.into_iter().zip(&keys).map(|(reward, key)| one(reward, key)).collect();
    check_names(&rewards, &keys, notes);
    rewards
}

/// Returns the names of all rewards, in order: the given one, or the plugin's id or `model`, with `.1` for the second such one.
pub fn names(rewards: &[Reward]) -> Vec<String> {
    let name = |(index, reward): (usize, &Reward)| {
        let base = base_of(reward);
        let alike = rewards[..index].iter().filter(|other| other.name.is_none() && base_of(other) == base).count();
        match &reward.name {
            Some(name) => name.clone(),
            None if alike > 0 => format!("{base}.{alike}"),
            None => base.to_owned(),
        }
    };
    rewards.iter().enumerate().map(name).collect()
}

fn base_of(reward: &Reward) -> &str {
    match &reward.source {
        RewardSource::Plugin { plugin } => plugin,
        RewardSource::Model { .. } => "model",
    }
}

/// Refuses names of other characters, and two rewards of the same name.
fn check_names(rewards: &[Reward], keys: &[String], notes: &mut Notes<'_>) {
    let all = names(rewards);
    for (index, key) in keys.iter().enumerate() {
        let Some(name) = &rewards[index].name else { continue };
        let key = format!("{key}.name");
        if !is_reward_name(name) {
            let why = format!(
                "{name:?} is not a valid name of a reward: letters, digits, _ and -, not a number, not token, not host_ at its beginning"
            );
            notes.refuse(&key, why);
        } else if let Some(other) = (0..all.len()).find(|other| *other != index && all[*other] == *name) {
            // Of two given names the second one is refused.
            if rewards[other].name.is_none() || other < index {
                notes.refuse(&key, format!("\"{name}\" is also the name of {}: choose another one", keys[other]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a second reward of a plugin whose name changes when another reward gets a name of its own.
    #[test]
    fn rewards_are_named_by_plugin_or_by_the_experiment() {
        let reward = |plugin: &str, name: Option<&str>| Reward {
            source: RewardSource::Plugin { plugin: plugin.into() },
            name: name.map(str::to_owned),
            weight: 1.0,
            normalise: false,
            aggregate: None,
            options: Map::new(),
        };
        let model = Reward { source: RewardSource::Model { model: "runs/x".into() }, ..reward("", None) };
        let all = [reward("length", None), model, reward("length", Some("brief")), reward("length", None)];
        assert_eq!(names(&all), ["length", "model", "brief", "length.1"]);
    }
}
