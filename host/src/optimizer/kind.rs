//! What every optimizer does, and the global norm of a gradient.

use plugin_api::{abi::View, backend::ops::GlobalNorm};

use crate::{
    device::{Buffer, Device, Tensor},
    error::Result,
};

/// Updates the parameters of one model from their gradient.
pub trait Optimizer {
    /// Measures the gradient, before clipping. Nothing is changed.
    ///
    /// # Errors
    /// Errors of the backend.
    fn measure(&mut self, grads: &Buffer) -> Result<Gradient>;

    /// Updates `params`, and their copy `shadow` in the compute dtype, at learning rate `lr`. Call after [`Optimizer::measure`] of the
    /// same gradient.
    ///
    /// # Errors
    /// Errors of the backend.
    fn update(&mut self, params: &Buffer, shadow: Option<&Buffer>, grads: &Buffer, lr: f64) -> Result<()>;

    /// Returns the state that a checkpoint contains: flat buffers, by their names in the file.
    fn moments(&self) -> [(&'static str, &Buffer); 2];

    /// Returns the number of updates applied so far.
    fn updates(&self) -> u64;

    /// Continues after `updates` updates whose moments have been restored.
    fn continue_after(&mut self, updates: u64);
}

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
/// Errors of the backend.
pub fn global_norm(device: &Device, flat: &Buffer) -> Result<Gradient> {
    measure_into(device, flat.view(), &device.tensor_of(device.accumulator(), 1, 2)?)
}

/// As [`global_norm`]; the device's copy of the result is left in `norm`.
///
/// # Errors
/// Errors of the backend.
pub fn measure_into(device: &Device, flat: View, norm: &Tensor) -> Result<Gradient> {
    device.call(&GlobalNorm { x: flat, norm: norm.view() })?;
    Ok(match norm.to_vec()?.as_slice() {
        [norm, finite] => Gradient { norm: *norm, finite: *finite != 0.0 && norm.is_finite() },
        _ => Gradient { norm: f64::NAN, finite: false },
    })
}
