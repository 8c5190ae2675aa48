//! The consumer's side: finds out what a library is without running it, loads it, and wraps its tables so that a loaded
//! plugin looks like a local implementation of the contract's traits.

mod backend;
mod file;
mod library;
mod objective;
mod reward;
mod scan;

pub use backend::LoadedSession;
pub use file::{Companion, Identity, LibraryFile};
pub use library::Library;
pub use objective::LoadedObjective;
pub use reward::LoadedReward;
pub use scan::{PluginInfo, scan};

use crate::{
    Error, Result,
    abi::{RResult, Status},
};

fn check(status: Status) -> Result<()> {
    match status {
        RResult::ROk(()) => Ok(()),
        RResult::RErr(e) => Err(Error::from(e)),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("cannot write JSON: {e}")))
}

fn from_json<T: serde::de::DeserializeOwned>(plugin: &str, what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::internal(format!("answered {what} that cannot be read: {e}")).in_plugin(plugin))
}
