//! One optimizer step: the models' forward pass, the objectives' losses, the cotangents of their statistics, the gradient, and
//! the step's metrics.

pub mod cotangents;
pub mod forward;
pub mod gradient;
pub(crate) mod metrics;
pub mod models;
#[cfg(test)]
mod tests;
pub mod window;
