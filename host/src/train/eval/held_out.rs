//! Held-out evaluation: the objectives' own losses and metrics on data that is never trained on.

use std::collections::BTreeMap;

use plugin_api::batch::{Batch, Scope, names};

use super::evaluator::Figures;
use crate::{
    data::{
        PackedBatch, Sequence, TrainingData, Window,
        batcher::{eval_sequences, eval_spans},
        order::DocumentSpan,
        pack::pack,
    },
    error::Result,
    model::Keep,
    objectives::{
        Objectives,
        batch_arrays::join_batches,
        micro_batch::{MicroBatchRange, cut, join},
    },
    runs::breadcrumb::CrashMarker,
    setup::Setup,
    train::{
        histogram::Distribution,
        memory::largest_rows::forward_tokens,
        step::{
            forward::ForwardPass,
            metrics::MetricAccumulator,
            models::Models,
            window::{PreparedWindow, prepare},
        },
    },
};

/// Evaluates `batches`, and returns the metrics with the distributions of a reward model's scores. Every denominator counts all of them, and a coupled loss reads all of them, so the result does not
/// depend on how the data is cut. Nothing is kept for a backward pass.
///
/// # Errors
/// Errors of plugins and of the backend.
pub fn evaluate(
    models: Models<'_>,
    objectives: &mut Objectives,
    batches: &[PackedBatch],
    marker: &CrashMarker,
) -> Result<(Figures, Vec<Distribution>)> {
    objectives.keeping_state(|objectives| {
        let PreparedWindow { arrays: joined, batches: read } = prepare(models, objectives, batches, marker)?;
        let mut read = read.into_iter().flatten();
        let objectives = &*objectives;
        let pass = ForwardPass { models, objectives };
        let denominators = objectives.denominators(batches, &joined)?;
        let (mut tally, mut waiting): (_, Vec<Batch<'_>>) = (MetricAccumulator::default(), Vec::new());
        let mut pairs = Vec::new();
        for (packed, part) in batches.iter().zip(MicroBatchRange::all(batches)) {
            marker.backend("held-out evaluation");
            let batch = match read.next() {
                Some(batch) => batch,
                None => pass.run(packed, Keep::Nothing)?.batch,
            };
            if objectives.coupled() {
                waiting.push(batch);
                continue;
            }
            let losses = objectives.losses(&batch, &joined, part, &packed.rows, marker)?;
            objectives.check_shares(&losses, &denominators)?;
            tally.add(packed, &batch, objectives, &losses);
            pairs.extend(scores_of_pairs(&batch));
        }
        if objectives.coupled() {
            let whole = join(batches);
            let batch = join_batches(&waiting, &whole);
            let losses = objectives.losses(&batch, &joined, MicroBatchRange::whole(&whole), &whole.rows, marker)?;
            objectives.check_shares(&losses, &denominators)?;
            tally.add(&whole, &batch, objectives, &losses);
            pairs.extend(scores_of_pairs(&batch));
        }
        let mut figures = vec![("loss".to_owned(), tally.loss(objectives, &denominators))];
        figures.extend(tally.metrics(&tally.of_objectives(objectives, &denominators)));
        figures.push(("tokens".into(), tally.supervised()));
        Ok((figures, Distribution::of_pairs(&pairs)))
    })
}

/// Returns the scores of each pair's chosen and rejected answer, if a reward model has scored pairs.
fn scores_of_pairs(batch: &Batch<'_>) -> Vec<(f64, f64)> {
    let of_sequences = |name| batch.find(name).filter(|array| array.scope == Scope::SEQUENCE).map(|array| &*array.data);
    let (Some(scores), Some(groups), Some(sides)) =
        (of_sequences("score"), of_sequences(names::GROUP), of_sequences(names::SIDE))
    else {
        return Vec::new();
    };
    let counted = of_sequences(names::COUNTED);
    let is_counted = |s: &usize| counted.and_then(|counted| counted.get(*s)) != Some(&0.0);
    let (mut pairs, mut halves) = (Vec::new(), BTreeMap::new());
    for s in (0..scores.len()).filter(is_counted) {
        let is_chosen = sides[s] == 1.0;
        // The other side of the same group.
        match halves.remove(&(groups[s].to_bits(), !is_chosen)) {
            Some(other) if is_chosen => pairs.push((scores[s], other)),
            Some(other) => pairs.push((other, scores[s])),
            None => _ = halves.insert((groups[s].to_bits(), is_chosen), scores[s]),
        }
    }
    pairs
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
    let batches = eval_sequences(&*data.held_out, context, setup.tokenizer.prefix(), tokens, most);
    let all = batches.map(|batch| composed(objectives, batch, experiment.seed, tokens));
    Ok(all.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Returns a batch with the sequences that the objectives compose from it, packed; if they or their sequences behind other prompts
/// are longer than the batch, in micro-batches of `tokens` positions.
fn composed(objectives: &Objectives, sequences: Vec<Sequence>, seed: u64, tokens: usize) -> Result<Vec<PackedBatch>> {
    let window = Window::new(sequences)?;
    let positions = window.positions();
    let composed = objectives.compose(window, seed, &CrashMarker::default())?;
    let extent: usize = composed.sequences().iter().map(Sequence::extent).sum();
    if composed.positions() > positions || extent > tokens.max(positions) {
        return cut(&composed, tokens);
    }
    Ok(vec![pack(composed.sequences())?])
}

/// Returns the held-out spans that [`held_out`] reads.
pub(crate) fn held_out_spans(setup: &Setup, data: &TrainingData) -> Vec<DocumentSpan> {
    let (context, most) = held_out_extent(setup);
    eval_spans(&*data.held_out, context, setup.tokenizer.prefix().is_some(), most)
}

/// Returns the context that held-out data is cut to, and about how many positions of it are read; `None`: all.
fn held_out_extent(setup: &Setup) -> (usize, Option<u64>) {
    let experiment = setup.experiment();
    let most = (experiment.eval.tokens > 0).then_some(experiment.eval.tokens);
    (experiment.longest_sequence(setup.config.context as usize), most)
}

#[cfg(test)]
mod tests {
    use plugin_api::{
        manifest::ObjectiveManifest,
        objective::{Loss, Objective},
    };

    use super::*;
    use crate::objectives::active::Active;

    /// Composes the reverse of every row, this many times.
    struct Backwards(usize);

    impl Objective for Backwards {
        fn compose(&self, rows: &Batch<'_>, _: u64) -> plugin_api::Result<Option<Batch<'static>>> {
            let (offsets, row) = (rows.offsets()?, rows.get("row")?);
            let times = |values: Vec<f64>| values.repeat(self.0);
            let turned = |name: &str| -> plugin_api::Result<Vec<f64>> {
                let values = rows.get(name)?;
                Ok(times(offsets.windows(2).flat_map(|w| values[w[0]..w[1]].iter().rev().copied()).collect()))
            };
            let lengths = times(offsets.windows(2).map(|w| (w[1] - w[0]) as f64).collect());
            let ends = lengths.iter().scan(0.0, |end, length| {
                *end += length;
                Some(*end)
            });
            let batch = Batch::new()
                .with(names::OFFSETS, Scope::BATCH, std::iter::once(0.0).chain(ends).collect::<Vec<_>>())
                .with("row", Scope::SEQUENCE, times(row.to_vec()))
                .with("token", Scope::TOKEN, turned("token")?)
                .with(names::MASK, Scope::TOKEN, turned(names::MASK)?);
            Ok(Some(batch))
        }

        fn loss(&self, _: &Batch<'_>) -> plugin_api::Result<Loss> {
            Ok(Loss::new())
        }
    }

    fn evaluated(times: usize) -> Vec<(Vec<i32>, Vec<i32>, Vec<f64>)> {
        let manifest = ObjectiveManifest::default();
        let active =
            Active::new("backwards", 1.0, String::new(), manifest, Box::new(Backwards(times)), "text").unwrap();
        let sequence = |(row, ids): (u64, &[u32])| Sequence {
            ids: ids.to_vec(),
            supervised: (0..ids.len()).map(|place| place > 0).collect(),
            row,
            ..Default::default()
        };
        let rows = [(0, &[1, 2, 3][..]), (1, &[4, 5, 6])].map(sequence).to_vec();
        let all = composed(&Objectives::new(vec![active]).unwrap(), rows, 7, 4).unwrap();
        all.into_iter().map(|batch| (batch.tokens, batch.targets, batch.mask)).collect()
    }

    /// Catches an evaluation that ignores the sequences that an objective composes.
    #[test]
    fn an_objective_that_composes_is_evaluated_on_its_own_sequences() {
        assert_eq!(evaluated(1), [(vec![3, 2, 6, 5], vec![2, 1, 5, 4], vec![1.0, 0.0, 1.0, 0.0])]);
    }

    /// Catches scores that are paired with a neighbour's instead of the other answer's of their row, sides that are exchanged
    /// where the rejected answer comes first, sequences that do not count, and scores per token that are read as an answer's.
    #[test]
    fn scores_of_the_answers_of_a_row_are_paired() {
        let sequences = |name: &'static str, values: Vec<f64>| Batch::new().with(name, Scope::SEQUENCE, values);
        let batch = sequences("score", vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
            .with(names::GROUP, Scope::SEQUENCE, vec![7.0, 8.0, 8.0, 7.0, 9.0, 9.0])
            .with(names::SIDE, Scope::SEQUENCE, vec![1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
            .with(names::COUNTED, Scope::SEQUENCE, vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(scores_of_pairs(&batch), [(3.0, 2.0), (1.0, 4.0)]);
        let per_token = sequences(names::GROUP, vec![7.0, 7.0]).with(names::SIDE, Scope::SEQUENCE, vec![1.0, 0.0]);
        assert!(scores_of_pairs(&per_token.with("score", Scope::TOKEN, vec![1.0; 4])).is_empty());
    }

    /// Catches composed sequences that exceed the memory of a batch because there are more of them than rows.
    #[test]
    fn composed_sequences_that_are_longer_than_their_rows_are_cut() {
        let parts = evaluated(2);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0], parts[1]);
    }
}
