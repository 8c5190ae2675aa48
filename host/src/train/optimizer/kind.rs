//! What every optimizer does, and which one an experiment chooses.

use super::gradient::Gradient;
use crate::{device::Buffer, error::Result};

/// Updates the parameters of one model from their gradient.
pub trait Optimizer {
    /// Measures the gradient, before clipping. Nothing is changed.
    ///
    /// # Errors
    /// The backend's.
    fn measure(&mut self, grads: &Buffer) -> Result<Gradient>;

    /// Updates `params`, and their copy `shadow` in the compute dtype, at learning rate `lr`. Call after [`Optimizer::measure`] of the
    /// same gradient.
    ///
    /// # Errors
    /// The backend's.
    fn update(&mut self, params: &Buffer, shadow: Option<&Buffer>, grads: &Buffer, lr: f64) -> Result<()>;

    /// Returns the state that a checkpoint holds, flat, by its names in the file.
    fn moments(&self) -> [(&'static str, &Buffer); 2];

    /// Returns the number of updates applied so far.
    fn updates(&self) -> u64;

    /// Continues after `updates` updates whose moments have been restored.
    fn continue_after(&mut self, updates: u64);
}
