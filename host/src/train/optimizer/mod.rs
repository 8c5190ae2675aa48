//! Optimizers: how parameters follow from gradients, with which rates, and at which step of the run.

pub mod adamw;
pub mod gradient;
pub mod groups;
pub mod kind;
pub mod moments;
mod muon;
pub mod schedule;

use crate::{
    config::experiment::{Optimizer as Settings, OptimizerKind},
    device::Device,
    error::Result,
    model::params::Layout,
};
use adamw::AdamW;
use kind::Optimizer;
use muon::Muon;

/// Creates the optimizer that `settings` choose for the parameters of `layout`.
///
/// # Errors
/// Request error for a group's pattern that is not a valid glob; memory.
pub fn create(device: &Device, layout: &Layout, settings: &Settings) -> Result<Box<dyn Optimizer>> {
    Ok(match settings.kind {
        OptimizerKind::Adamw => Box::new(AdamW::new(device, layout, settings)?),
        OptimizerKind::Muon => Box::new(Muon::new(device, layout, settings)?),
    })
}
