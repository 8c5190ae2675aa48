//! The reference model: frozen, or tracking the policy.

use std::path::Path;

use crate::{
    config::experiment::{Follow, ReferenceAdapter, SELF},
    device::Device,
    error::Result,
    model::{Model, Outputs},
    setup::Setup,
};

/// Folder in a checkpoint with a reference that tracks the policy.
pub(super) const REFERENCE: &str = "reference";

/// A reference model.
pub struct Reference {
    /// The model; absent once it has scored all rows that the run reads.
    pub model: Option<Model>,
    /// Whether the model is dropped before the first step.
    pub dropped_early: bool,
    /// How it tracks the policy; `None` if it is frozen.
    pub follow: Option<Follow>,
}

impl Reference {
    pub(super) fn open(setup: &Setup, device: &Device, checkpoint: Option<&Path>) -> Result<Reference> {
        let table = setup.experiment().reference.as_ref();
        let follow = table.and_then(|table| table.follow);
        let adapter = table.and_then(|table| table.adapter);
        let saved = checkpoint.map(|folder| folder.join(REFERENCE)).filter(|_| follow.is_some());
        let model = match (saved, table.map_or(SELF, |table| table.from.as_str())) {
            (Some(folder), from) => setup.saved_role(device, &folder, from, Outputs::TOKENS)?,
            (None, SELF) if adapter == Some(ReferenceAdapter::Off) => {
                setup.frozen_weights(device)?.frozen(Outputs::TOKENS)
            }
            (None, SELF) => setup.model(device, None, Outputs::TOKENS)?,
            (None, path) => setup.role("reference.from", device, path, Outputs::TOKENS)?,
        };
        Ok(Reference { model: Some(model), dropped_early: false, follow })
    }
}
