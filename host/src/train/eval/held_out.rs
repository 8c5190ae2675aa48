//! Held-out evaluation: the objectives' own losses and metrics on data that is never trained on.

use plugin_api::batch::Batch;

use super::evaluator::Figures;
use crate::{
    data::{
        PackedBatch, TrainingData, Window,
        batcher::{eval_batches, eval_stretches},
        order::Stretch,
    },
    error::Result,
    model::Keep,
    objectives::{
        Objectives,
        batch_arrays::join_batches,
        micro_batch::{MicroBatchRange, cut, join, unpack},
    },
    runs::breadcrumb::CrashMarker,
    setup::Setup,
    train::{
        memory::largest_rows::forward_tokens,
        step::{forward::ForwardPass, metrics::MetricAccumulator, models::Models},
    },
};

/// Evaluates `batches`. Every denominator counts all of them, and a coupled loss reads all of them, so the result does not
/// depend on how the data is cut. Nothing is kept for a backward pass.
///
/// # Errors
/// Errors of plugins and of the backend.
pub fn evaluate(
    models: Models<'_>,
    objectives: &mut Objectives,
    batches: &[PackedBatch],
    marker: &CrashMarker,
) -> Result<Figures> {
    objectives.keeping_state(|objectives| {
        let joined = objectives.prepare(batches, marker)?;
        let objectives = &*objectives;
        let pass = ForwardPass { models, objectives };
        let denominators = objectives.denominators(batches, &joined)?;
        let (mut tally, mut waiting): (_, Vec<Batch<'_>>) = (MetricAccumulator::default(), Vec::new());
        for (packed, part) in batches.iter().zip(MicroBatchRange::all(batches)) {
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
            let losses = objectives.losses(&batch, &joined, MicroBatchRange::whole(&whole), &whole.rows, marker)?;
            objectives.check_shares(&losses, &denominators)?;
            tally.add(&whole, &batch, objectives, &losses);
        }
        let mut figures = vec![("loss".to_owned(), tally.loss(objectives, &denominators))];
        figures.extend(tally.metrics(objectives, &denominators));
        figures.push(("tokens".into(), tally.supervised()));
        Ok(figures)
    })
}

/// Returns mean and standard deviation of a reward model's scores, if the evaluation measured them.
pub fn spread_of_scores(figures: &Figures) -> Option<(f64, f64)> {
    let named = |ending: &str| figures.iter().find(|(name, _)| name.ends_with(ending)).map(|(_, value)| *value);
    let (mean, mean_square) = (named("score/mean")?, named("score/mean_square")?);
    Some((mean, (mean_square - mean * mean).max(0.0).sqrt()))
}

/// Returns the held-out data in batches, cut the same way every time; empty if the policy answers the prompts itself.
///
/// # Errors
/// Rows that cannot be packed.
pub fn held_out(setup: &Setup, objectives: &Objectives, data: &TrainingData) -> Result<Vec<PackedBatch>> {
    if objectives.needs().rollouts {
        return Ok(Vec::new());
    }
    let experiment = setup.experiment();
    let (context, most) = held_out_extent(setup);
    let tokens = forward_tokens(setup, objectives, &*data.train);
    let batches = eval_batches(&*data.held_out, context, setup.tokenizer.prefix(), tokens, most);
    let marker = CrashMarker::default();
    let mut all = Vec::new();
    for batch in batches {
        let batch = batch?;
        let positions = batch.len();
        let composed = objectives.compose_packed(batch, experiment.seed, &marker)?;
        // Composed sequences may be longer than their rows.
        match composed.len() > positions {
            true => all.extend(cut(&Window::new(unpack(&composed))?, tokens)?),
            false => all.push(composed),
        }
    }
    Ok(all)
}

/// Returns the held-out stretches that [`held_out`] reads.
pub(crate) fn held_out_stretches(setup: &Setup, data: &TrainingData) -> Vec<Stretch> {
    let (context, most) = held_out_extent(setup);
    eval_stretches(&*data.held_out, context, setup.tokenizer.prefix().is_some(), most)
}

/// Returns the context that held-out data is cut to, and about how many positions of it are read; `None`: all.
fn held_out_extent(setup: &Setup) -> (usize, Option<u64>) {
    let experiment = setup.experiment();
    let most = (experiment.eval.tokens > 0).then_some(experiment.eval.tokens);
    (experiment.longest_sequence(setup.config.context as usize), most)
}
