//! Objectives, the models that they read, rewards and rollouts.

use serde::Serialize;
use serde_json::{Map, Value as Json};

/// One `[[objective]]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objective {
    /// Id of the plugin.
    pub plugin: String,
    /// Factor in the sum.
    pub weight: f64,
    /// Running text for this objective alone, if it learns from text while the first objective learns from rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Vec<String>>,
    /// Number of tokens of that text per step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// The plugin's own options, checked and with defaults filled in.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// `[reference]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// `self` for the policy's starting weights, or a model's folder.
    pub from: String,
    /// How it tracks the policy; absent: not at all.
    #[serde(flatten)]
    pub follow: Option<Follow>,
}

/// How the reference model tracks the policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// It is replaced by the policy after every N steps.
    CopyEvery(u64),
    /// After every step it becomes the average of itself, with this weight, and of the policy, with the remaining
    /// weight.
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

/// Value of `reference.from`: the policy's initial weights.
pub const SELF: &str = "self";
/// Value of `critic.from`: a copy of the policy's initial weights.
pub const POLICY: &str = "policy";
/// Value of `critic.from`: a scalar head on the policy's own trunk.
pub const SHARED: &str = "shared";

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
