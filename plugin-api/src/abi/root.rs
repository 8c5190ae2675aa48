//! The root of a plugin: made from the table of its kind, and passed to the loader.

use super::tables::{BackendTable, ObjectiveTable, PluginRoot, PluginRootRef, RewardTable};
use abi_stable::{
    library::RootModuleResult,
    prefix_type::{PrefixRefTrait, PrefixTypeTrait},
    std_types::{RNone, ROption, RResult, RSome},
};

pub use abi_stable::library::{CheckTypeLayout, LibHeader};

/// The return type of the constructor of a root.
pub type RootResult = RootModuleResult;

impl PluginRoot {
    /// The root of an objective.
    pub fn of_objective(table: ObjectiveTable) -> PluginRootRef {
        Self { objective: RSome(table.leak_into_prefix()), ..Self::without_tables() }.leak_into_prefix()
    }

    /// The root of a backend.
    pub fn of_backend(table: BackendTable) -> PluginRootRef {
        Self { backend: RSome(table.leak_into_prefix()), ..Self::without_tables() }.leak_into_prefix()
    }

    /// The root of a reward.
    pub fn of_reward(table: RewardTable) -> PluginRootRef {
        Self { reward: RSome(table.leak_into_prefix()), ..Self::without_tables() }.leak_into_prefix()
    }

    fn without_tables() -> Self {
        let (objective, backend, reward): (ROption<_>, ROption<_>, ROption<_>) = (RNone, RNone, RNone);
        Self {
            objective,
            backend,
            reward,
            #[cfg(feature = "next-minor")]
            appended: 1,
        }
    }
}

/// Passes a root to the loader.
pub fn root_result(root: PluginRootRef) -> RootResult {
    // SAFETY: the erased reference is converted back to a `PluginRootRef` only, after the layout check.
    RResult::ROk(unsafe { root.to_prefix_ref().cast() })
}
