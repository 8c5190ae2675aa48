//! Held-out evaluation: the objectives' own losses and metrics over data that is never trained on.

pub mod exact_match;
pub(crate) mod expectations;
pub mod generation;
pub(crate) mod metric_names;

use plugin_api::batch::Batch;

use super::{
    roles::Roles,
    step::{forward::Pass, gradient::join_batches, metrics::Tally},
};
use crate::{
    data::PackedBatch,
    error::Result,
    model::{Keep, Model},
    objectives::{
        Objectives,
        batch_arrays::{Part, join},
    },
    runs::breadcrumb::CrashMarker,
};

/// Figures of an evaluation, by name without the `eval/` before it, `loss` first.
pub type Figures = Vec<(String, f64)>;

/// Evaluates `batches`; every denominator spans them all, and a loss that couples them sees them all, so that it does not matter
/// how they are cut. Saves nothing for a backward.
///
/// # Errors
/// The plugins' and the backend's own.
pub fn evaluate(
    model: &Model,
    roles: &Roles,
    objectives: &mut Objectives,
    batches: &[PackedBatch],
    marker: &CrashMarker,
) -> Result<Figures> {
    objectives.keeping_state(|objectives| {
        let joined = objectives.prepare(batches, marker)?;
        let objectives = &*objectives;
        let pass = Pass { model, roles, objectives };
        let denominators = objectives.denominators(batches, &joined)?;
        let (mut tally, mut waiting): (_, Vec<Batch<'_>>) = (Tally::default(), Vec::new());
        for (packed, part) in batches.iter().zip(Part::all(batches)) {
            marker.backend("held-out evaluation");
            let batch = pass.run(packed, Keep::Nothing)?.batch;
            if objectives.coupled() {
                waiting.push(batch);
                continue;
            }
            let losses = objectives.losses(&batch, &joined, part, &packed.rows, marker)?;
            objectives.check_shares(&losses, &denominators)?;
            tally.add(packed, &batch, objectives, &losses);
        }
        if objectives.coupled() {
            let whole = join(batches);
            let batch = join_batches(&waiting, &whole);
            let losses = objectives.losses(&batch, &joined, Part::whole(&whole), &whole.rows, marker)?;
            objectives.check_shares(&losses, &denominators)?;
            tally.add(&whole, &batch, objectives, &losses);
        }
        let mut figures = vec![("loss".to_owned(), tally.loss(objectives, &denominators))];
        figures.extend(tally.metrics(objectives, &denominators));
        figures.push(("tokens".into(), tally.supervised()));
        Ok(figures)
    })
}

/// Mean and standard deviation of a reward model's scores, where an evaluation found them.
pub fn spread_of_scores(figures: &Figures) -> Option<(f64, f64)> {
    let named = |ending: &str| figures.iter().find(|(name, _)| name.ends_with(ending)).map(|(_, value)| *value);
    let (mean, mean_square) = (named("score/mean")?, named("score/mean_square")?);
    Some((mean, (mean_square - mean * mean).max(0.0).sqrt()))
}
