//! The models of a step: the policy that learns, and those that it is compared with.

use crate::{
    device::Buffer,
    error::{Error, Result},
    model::Model,
    objectives::reads::Frozen,
};

/// The policy and the other models.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The model that learns.
    pub policy: &'a Model,
    /// The frozen reference; absent if no objective reads one, and if its log-probabilities were computed before the first
    /// step.
    pub reference: Option<&'a Model>,
    /// The frozen teacher; absent if no objective reads one.
    pub teacher: Option<&'a Model>,
    /// The model that reads the same answers behind other prompts, which may be the policy; absent if no objective reads one.
    pub context: Option<&'a Model>,
    /// A separate value model; absent if no objective reads values, and if they come from the policy's own scalar head.
    pub critic: Option<CriticModel<'a>>,
}

impl<'a> Models<'a> {
    /// Returns the model of a frozen role.
    ///
    /// # Errors
    /// It is missing.
    pub fn frozen(&self, role: Frozen) -> Result<&'a Model> {
        let model = match role {
            Frozen::Reference => self.reference,
            Frozen::Teacher => self.teacher,
            Frozen::Context => self.context,
        };
        model.ok_or_else(|| Error::run(format!("the {} model is missing", role.name())))
    }
}

/// A value model and where its gradient goes.
#[derive(Clone, Copy)]
pub struct CriticModel<'a> {
    /// The model.
    pub model: &'a Model,
    /// The gradient to add to, flat.
    pub grads: &'a Buffer,
}
