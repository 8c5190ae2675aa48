//! The global norm of a gradient.

use plugin_api::{abi::View, backend::ops::GlobalNorm};

use crate::{
    device::{Buffer, Device, Tensor},
    error::Result,
};

/// Global gradient norm before clipping, and whether it is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gradient {
    /// The norm.
    pub norm: f64,
    /// Whether all of the gradient is finite.
    pub finite: bool,
}

/// Measures a flat buffer.
///
/// # Errors
/// The backend's.
pub fn global_norm(device: &Device, flat: &Buffer) -> Result<Gradient> {
    measure_into(device, flat.view(), &device.tensor_of(device.accumulator(), 1, 2)?)
}

/// As [`global_norm`]; the device's copy of the result is left in `norm`.
///
/// # Errors
/// The backend's.
pub fn measure_into(device: &Device, flat: View, norm: &Tensor) -> Result<Gradient> {
    device.call(&GlobalNorm { x: flat, norm: norm.view() })?;
    Ok(match norm.to_vec()?.as_slice() {
        [norm, finite] => Gradient { norm: *norm, finite: *finite != 0.0 && norm.is_finite() },
        _ => Gradient { norm: f64::NAN, finite: false },
    })
}
