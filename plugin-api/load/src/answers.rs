//! Results of a table's functions: a status, and JSON.

use plugin_api::{
    Error, Result,
    abi::{RResult, Status},
};

pub(crate) fn check(status: Status) -> Result<()> {
    match status {
        RResult::ROk(()) => Ok(()),
        RResult::RErr(e) => Err(Error::from(e)),
    }
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("cannot write JSON: {e}")))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(plugin: &str, what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::internal(format!("returned {what} that cannot be read: {e}")).in_plugin(plugin))
}
