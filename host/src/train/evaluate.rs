//! Held-out evaluation: the objectives' own losses and metrics over text that is never trained on.

use super::{
    arrays::{Part, supervised_rows, with_statistics},
    objectives::Objectives,
    tally::Tally,
    trail::Trail,
    window::view,
};
use crate::{
    data::PackedBatch,
    error::Result,
    model::{HeadRequest, Keep, Model},
};

/// Figures of an evaluation, by name without the `eval/` before it, `loss` first.
pub type Figures = Vec<(String, f64)>;

/// Evaluates `batches`; every denominator spans them all. Saves nothing for a backward.
///
/// # Errors
/// The plugins' and the backend's own.
pub fn evaluate(model: &Model, objectives: &mut Objectives, batches: &[PackedBatch], trail: &Trail) -> Result<Figures> {
    objectives.keeping_state(|objectives| figures(model, objectives, batches, trail))
}

fn figures(model: &Model, objectives: &mut Objectives, batches: &[PackedBatch], trail: &Trail) -> Result<Figures> {
    let joined = objectives.prepare(batches, trail)?;
    let objectives = &*objectives;
    let denominators = objectives.denominators(batches, &joined)?;
    let mut tally = Tally::default();
    for (packed, part) in batches.iter().zip(Part::all(batches)) {
        trail.backend("held-out evaluation");
        let rows = supervised_rows(packed);
        let forward = model.forward(view(packed), Keep::Nothing)?;
        let request = HeadRequest {
            rows: (rows.len() < packed.len()).then_some(&rows),
            temperature: objectives.temperature(),
            statistics: objectives.statistics(),
            ..HeadRequest::new(&packed.targets)
        };
        let stats = model.head_stats(&forward, &request)?.stats;
        let batch = with_statistics(packed, &rows, objectives.statistics(), Some(&stats))?;
        let losses = objectives.losses(&batch, &joined, part, trail)?;
        tally.add(packed, &batch, objectives, &losses);
    }
    let mut figures = vec![("loss".to_owned(), tally.loss(objectives, &denominators))];
    figures.extend(tally.metrics(objectives, &denominators));
    figures.push(("tokens".into(), tally.supervised()));
    Ok(figures)
}
