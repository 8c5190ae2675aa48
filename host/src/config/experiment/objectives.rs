//! What is minimised: objectives, the models that they read, rewards and rollouts.

use serde::Serialize;
use serde_json::{Map, Value as Json};

/// One `[[objective]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objective {
    /// Id of the plugin.
    pub plugin: String,
    /// Factor in the sum.
    pub weight: f64,
    /// Text of its own, beside the rows of the first objective.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
    /// Tokens of that text that a step sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// The plugin's own options, checked and complete.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// `[reference]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// `self` for the policy's starting weights, or a model's folder.
    pub from: String,
    /// How it follows the policy; absent: not at all.
    #[serde(flatten)]
    pub follow: Option<Follow>,
}

/// How a frozen model follows the one that trains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// It becomes the policy after every so many steps.
    CopyEvery(u64),
    /// After every step it becomes this share of itself and the rest of the policy.
    Average(f64),
}

/// `[critic]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Critic {
    /// `policy`, `shared`, or a model's folder.
    pub from: String,
    /// Peak learning rate; absent: the optimizer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
}

/// A word of `reference.from`: the policy's starting weights.
pub const SELF: &str = "self";
/// A word of `critic.from`: a copy of the policy's starting weights.
pub const POLICY: &str = "policy";
/// A word of `critic.from`: a scalar head on the policy's own trunk.
pub const SHARED: &str = "shared";

/// One `[[reward]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reward {
    /// Who says it.
    #[serde(flatten)]
    pub source: RewardSource,
    /// Factor in the reward of rollouts.
    pub weight: f64,
    /// Whether a model's scores are put on the scale that its training recorded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub normalise: bool,
    /// The plugin's own options, checked and complete.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// Who says what an answer is worth.
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

/// `[rollout]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rollout {
    /// Prompts of a rollout.
    pub prompts: usize,
    /// Answers to each.
    pub samples: usize,
    /// Passes over a rollout.
    pub epochs: usize,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// The k most probable tokens; 0: all.
    pub top_k: usize,
    /// Largest distance of a reward from 0; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}
