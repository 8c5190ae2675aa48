//! `[reference]`, `[critic]`, `[[reward]]` and `[rollout]`: the models and rewards besides the policy, and how the
//! policy samples answers.
//!
//! Whether an objective reads any of them is known only once its plugin is loaded, and is checked then.

use crate::config::experiment::*;
use crate::config::written;
use crate::keys::notes::Notes;
use crate::keys::tree::keys_of;

/// `[reference]`.
pub fn reference(written: written::Reference, notes: &mut Notes<'_>) -> Reference {
    if written.copy_every.is_some() && written.average.is_some() {
        notes.refuse("reference.average", "contradicts reference.copy_every: give one of them");
    }
    let follow = written.copy_every.map(Follow::CopyEvery).or(written.average.map(Follow::Average));
    Reference { from: written.from.unwrap_or_else(|| SELF.to_owned()), follow }
}

/// `[critic]`.
pub fn critic(written: written::Critic, notes: &mut Notes<'_>) -> Critic {
    let from = written.from.unwrap_or_else(|| POLICY.to_owned());
    if from == SHARED {
        notes.unused("critic.lr", &written.lr, "a critic on the policy's own trunk learns at the policy's rate");
    }
    Critic { from, lr: written.lr }
}

/// `[[reward]]`.
pub fn rewards(written: Vec<written::Reward>, notes: &mut Notes<'_>) -> Vec<Reward> {
    let keys = keys_of("reward", notes.root, written.len());
    let one = |(reward, key): (written::Reward, String)| {
        if reward.plugin.is_some() && reward.model.is_some() {
            notes.refuse(&format!("{key}.model"), format!("contradicts {key}.plugin: give one of them"));
        }
        let source = match (reward.plugin, reward.model) {
            (Some(plugin), _) => {
                let why = "only a model's scores have a recorded scale";
                notes.unused(&format!("{key}.normalise"), &reward.normalise, why);
                RewardSource::Plugin { plugin }
            }
            (None, Some(model)) => RewardSource::Model { model },
            (None, None) => {
                let why = "which reward? for example plugin = \"length\", or model = \"runs/reward\"";
                notes.missing(&format!("{key}.plugin"), why);
                RewardSource::Plugin { plugin: String::new() }
            }
        };
        Reward {
            source,
            weight: reward.weight.unwrap_or(1.0),
            normalise: reward.normalise.unwrap_or(false),
            options: Default::default(),
        }
    };
    written.into_iter().zip(keys).map(one).collect()
}
