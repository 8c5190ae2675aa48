//! A separate value model with its own optimizer.

use std::path::Path;

use crate::{
    config::experiment::{POLICY, SHARED},
    device::{Buffer, Device},
    error::Result,
    model::{Model, Outputs, params::Table},
    optimizer::kind::Optimizer,
    setup::Setup,
};

/// Folder in a checkpoint with a separate critic.
pub(super) const CRITIC: &str = "critic";

/// A critic and everything that trains it.
pub struct Critic {
    /// The model.
    pub model: Model,
    /// The gradient of the latest window, flat.
    pub grads: Buffer,
    /// Its optimizer.
    pub optimizer: Box<dyn Optimizer>,
    /// Its learning rate divided by the policy's.
    pub rate: f64,
}

impl Critic {
    /// Loads the value model that the experiment names, with the optimizer that `create` returns for its parameters; `None` if the
    /// values come from the policy's own scalar head.
    pub(super) fn open(
        setup: &Setup,
        device: &Device,
        checkpoint: Option<&Path>,
        create: impl FnOnce(&Table) -> Result<Box<dyn Optimizer>>,
    ) -> Result<Option<Critic>> {
        let (experiment, table) = (setup.experiment(), setup.experiment().critic.as_ref());
        let model = match (checkpoint, table.map_or(POLICY, |table| table.from.as_str())) {
            (_, SHARED) => return Ok(None),
            (Some(checkpoint), from) => setup.saved_role(device, &checkpoint.join(CRITIC), from, Outputs::SCALAR)?,
            (None, POLICY) => setup.model(device, None, Outputs::SCALAR)?,
            (None, path) => setup.role("critic.from", device, path, Outputs::SCALAR)?,
        };
        let optimizer = create(model.learned().table)?;
        let rate = table.and_then(|table| table.lr).map_or(1.0, |lr| lr / experiment.train.optimizer.lr);
        Ok(Some(Critic { grads: model.flat_buffer()?, model, optimizer, rate }))
    }
}
