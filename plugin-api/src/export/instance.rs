//! Shared by the tables of all kinds of plugin: instances behind pointers, statuses and JSON.

use super::guard::{self, Guarded};
use crate::{
    Error, Result,
    abi::{AbiError, RErr, ROk, Status, tables::Instance},
};

/// The id and version given to an export macro.
pub trait Identity: 'static {
    /// Its id.
    const ID: &'static str;
    /// Its version.
    const VERSION: &'static str;
}

pub(super) fn status<T>(result: Result<T>, out: impl FnOnce(T)) -> Status {
    match result {
        Ok(value) => {
            out(value);
            ROk(())
        }
        Err(e) => RErr(AbiError::from(e)),
    }
}

pub(super) fn to_instance<T>(value: T) -> Instance {
    Instance(Box::into_raw(Box::new(value)).cast())
}

/// Returns the instance behind a pointer.
///
/// # Safety
/// `instance` came from [`to_instance`] of the same `T`, has not been destroyed, and no other reference to it exists. The tables
/// are typed by plugin, so only a host that exchanges two plugins' instances violates this.
pub(super) unsafe fn from_instance<'a, T>(instance: Instance) -> Result<&'a mut Guarded<T>> {
    // SAFETY: guaranteed by the caller; a null pointer is refused here.
    unsafe { instance.0.cast::<Guarded<T>>().as_mut() }.ok_or_else(|| Error::invalid("a null instance was passed"))
}

/// Destroys an instance; a panic of its destructor stops here.
///
/// # Safety
/// As [`from_instance`]; the pointer is invalid afterwards.
pub(super) unsafe fn drop_instance<T>(instance: Instance) {
    if instance.0.is_null() {
        return;
    }
    // SAFETY: guaranteed by the caller.
    let boxed = unsafe { Box::from_raw(instance.0.cast::<Guarded<T>>()) };
    let plugin = boxed.plugin();
    let _ = guard::catch(plugin, "destroy", || {
        drop(boxed);
        Ok(())
    });
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("cannot write JSON: {e}")))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(format!("cannot read JSON: {e}")))
}
