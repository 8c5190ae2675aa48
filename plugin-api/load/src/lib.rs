//! The consumer's side of the contract, for programs that load plugins: finds out what a library is without running it, loads it,
//! and wraps its tables so that a loaded plugin looks like a local implementation of the contract's traits.

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
