//! The models that take part in a step.

use crate::{device::Buffer, model::Model};

/// The policy and the other models.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The model that learns.
    pub policy: &'a Model,
    /// The frozen reference; absent if no objective reads one, and if its log-probabilities were computed before the first
    /// step.
    pub reference: Option<&'a Model>,
    /// A separate value model; absent if no objective reads values, and if they come from the policy's own scalar head.
    pub critic: Option<CriticModel<'a>>,
}

/// A value model and where its gradient goes.
#[derive(Clone, Copy)]
pub struct CriticModel<'a> {
    /// The model.
    pub model: &'a Model,
    /// The gradient to add to, flat.
    pub grads: &'a Buffer,
}
