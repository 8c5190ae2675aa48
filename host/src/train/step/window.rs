//! What the objectives prepare for a whole window, and the statistics of the window if `prepare` reads them.

use plugin_api::batch::Batch;

use super::{forward::ForwardPass, models::Models};
use crate::{
    data::PackedBatch,
    error::Result,
    model::Keep,
    objectives::{Objectives, prepared_arrays::PreparedArrays},
    runs::breadcrumb::CrashMarker,
};

/// What the objectives prepared for a window.
pub struct PreparedWindow {
    /// The arrays that they returned.
    pub arrays: PreparedArrays,
    /// The micro-batches with their statistics, if an objective needed these for `prepare`.
    pub batches: Option<Vec<Batch<'static>>>,
}

/// Calls the objectives' `prepare` with the window `parts`. If one reads the statistics of the window, all micro-batches run
/// forward first. Nothing is kept for a backward pass.
///
/// # Errors
/// Errors of plugins and of the backend.
pub fn prepare(
    models: Models<'_>,
    objectives: &mut Objectives,
    parts: &[PackedBatch],
    marker: &CrashMarker,
) -> Result<PreparedWindow> {
    let batches = match objectives.reads_window() {
        true => {
            marker.backend("forward of the whole window");
            Some(ForwardPass { models, objectives }.run_all(parts)?)
        }
        false => None,
    };
    let arrays = objectives.prepare(parts, batches.as_deref(), marker)?;
    Ok(PreparedWindow { arrays, batches })
}

impl ForwardPass<'_> {
    /// Runs every micro-batch of a window forward, without keeping activations.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn run_all(&self, parts: &[PackedBatch]) -> Result<Vec<Batch<'static>>> {
        parts.iter().map(|packed| Ok(self.run(packed, Keep::Nothing)?.batch)).collect()
    }
}
