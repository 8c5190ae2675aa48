//! Optimizers: how parameters follow from gradients, with which rates, and at which step of the run.

pub mod adamw;
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
use groups::Rule;
use kind::Optimizer;
use muon::Muon;

/// Creates the optimizer that `settings` choose for the parameters of `layout`.
///
/// # Errors
/// Request error for a group's pattern that is not a valid glob; memory.
pub fn create(device: &Device, layout: &Layout, settings: &Settings) -> Result<Box<dyn Optimizer>> {
    Ok(match settings.kind {
        OptimizerKind::Adamw => Box::new(AdamW::new(device, layout, settings)?),
        OptimizerKind::Muon => {
            let mut rules = groups::rules(layout, settings)?;
            let hidden = layout.hidden_matrices();
            let matrices = hidden
                .into_iter()
                .map(|index| (layout.parameters()[index].clone(), std::mem::replace(&mut rules[index], Rule::FROZEN)));
            let matrices = matrices.collect();
            let rest = Box::new(AdamW::with_rules(device, layout, settings, &rules)?);
            Box::new(Muon::new(device, settings, matrices, rest)?)
        }
    })
}
