//! The consumer's side of the contract, for programs that load plugins: identifies a library without running it, loads it, and
//! wraps its tables so that a loaded plugin is used like a local implementation of the contract's traits.

mod answers;
mod backend;
mod file;
mod library;
mod objective;
mod reward;
mod scan;

pub use backend::LoadedSession;
pub use file::{Companion, Identity, LibraryFile, scan};
pub use library::Library;
pub use objective::LoadedObjective;
pub use reward::LoadedReward;
pub use scan::PluginInfo;
