//! Opens a backend's session as a device, with the dtype and threads that an experiment names.

use plugin_api::backend::{DType, SessionOptions};
use plugin_api_load::Library;

use super::{
    Device,
    dtype::Dtype,
    profile::{Profile, Record},
};
use crate::{
    error::{Error, Result},
    runs::breadcrumb,
};

/// Opens a session of `library`.
///
/// # Errors
/// A request error for a device that is not available.
pub fn open(
    library: &Library,
    options: &SessionOptions,
    compute: DType,
    profile: bool,
) -> Result<(Device, Option<Record>)> {
    let session = breadcrumb::within(&library.info().id, "session", || library.session(options));
    let session = session.map_err(|e| Error::request(e.to_string()))?;
    if !profile {
        return Ok((Device::new(Box::new(session), compute)?, None));
    }
    let (session, record) = Profile::wrap(Box::new(session));
    Ok((Device::new(session, compute)?, Some(record)))
}

/// Converts a config dtype to the plugin contract's.
pub fn dtype(wanted: Dtype) -> DType {
    match wanted {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
        Dtype::F64 => DType::F64,
    }
}

/// Returns the number of threads; 0 means all cores.
pub fn threads(wanted: usize) -> usize {
    if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
