//! A plugin's description of itself. It crosses as JSON: an older host ignores fields of a newer minor version, and fields that an
//! older plugin lacks get their defaults.

mod backend;
mod names;
mod objective;
mod option;
mod reward;
mod statistic;

pub use backend::{BackendManifest, DeviceSpec};
pub use names::{AttentionMask, ColumnValue, DataKind, Normaliser, Reduction};
pub use objective::{
    Candidates, Divergence, Expectation, GivenNumber, MetricSpec, ObjectiveColumn, ObjectiveManifest, Requirements,
    StopGradient, TermNormaliser, TermSpec,
};
pub use option::OptionSpec;
pub use reward::{RewardColumn, RewardManifest, RewardPart};
pub use statistic::{Statistic, StatisticSpec};

/// The three kinds of plugin, as written in a library's header.
pub mod kind {
    /// An objective.
    pub const OBJECTIVE: &str = "objective";
    /// A backend.
    pub const BACKEND: &str = "backend";
    /// A reward.
    pub const REWARD: &str = "reward";
}
