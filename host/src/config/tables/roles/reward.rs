//! `[[reward]]`: scores of answers.

use std::ops::Bound::Unbounded;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::keys::notes::Notes;
use crate::keys::tree::keys_of;
use crate::keys::{Form, table};

table! {
    /// scores answers: one table, or several [[reward]], whose weighted sum is the reward of rollouts; each also scores
    /// the answers of eval.generate; further keys are options of the plugin
    pub struct Written at "reward": Form::Plugins, example { plugin = "length" } {
        /// id of a reward plugin; give either this or model
        plugin: String, Form::Text, example "world";
        /// a trained reward model: a run, a checkpoint or a Hugging Face folder; give either this or plugin
        model: String, Form::Text, example "runs/reward";
        /// factor in the reward of rollouts; 0: only reported
        weight: f64 = 1.0, Form::Float(Unbounded, Unbounded), example 0.5;
        /// with model: subtract the mean and divide by the standard deviation of the scores that its training recorded
        normalise: bool = false, Form::Bool, example true;
    }
}

/// One `[[reward]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reward {
    /// The plugin or model that computes it.
    #[serde(flatten)]
    pub source: RewardSource,
    /// Factor in the reward of rollouts.
    pub weight: f64,
    /// Whether a model's scores are normalised with the scale that its training recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub normalise: bool,
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
    let one = |(reward, key): (Written, String)| {
        if reward.plugin.is_some() && reward.model.is_some() {
            notes.refuse(&format!("{key}.model"), format!("contradicts {key}.plugin: give one of them"));
        }
        let (weight, normalise) = (reward.weight(), reward.normalise());
        let source = match (reward.plugin, reward.model) {
            (Some(plugin), _) => {
                let why = "only a model's scores have a recorded scale";
                notes.unused(&format!("{key}.normalise"), &reward.normalise, why);
                RewardSource::Plugin { plugin }
            }
            (None, Some(model)) => RewardSource::Model { model },
            (None, None) => {
                let why = "a plugin or a model is needed; for example plugin = \"length\", or model = \"runs/reward\"";
                notes.missing(&format!("{key}.plugin"), why);
                RewardSource::Plugin { plugin: String::new() }
            }
        };
        Reward { source, weight, normalise, options: Default::default() }
    };
    written.into_iter().zip(keys).map(one).collect()
}
