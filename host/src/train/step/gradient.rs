//! The gradient of one optimizer window, from packed micro-batches, in the order of DESIGN's "one step, in one breath".
//!
//! There are three ways, chosen by what the objectives declare: cotangents known in advance (the head computes loss and
//! gradient in one pass), cotangents from statistics, and coupled losses (the window runs forward without saving, the loss is
//! called once, then each micro-batch is computed again).

use plugin_api::{
    batch::{Batch, names},
    contract,
    objective::Loss,
};

use super::{
    cotangents::{Denominators, TokenCotangents},
    forward::ForwardPass,
    metrics::MetricAccumulator,
    models::Models,
};
use crate::{
    data::PackedBatch,
    device::Buffer,
    error::Result,
    model::{Keep, Recompute},
    objectives::{
        Objectives,
        active::broken,
        batch_arrays::{join_batches, supervised_rows, with_statistics},
        micro_batch::{MicroBatchRange, join, view},
        prepared_arrays::PreparedArrays,
    },
    runs::breadcrumb::CrashMarker,
};

/// What a window yields in addition to the gradient.
pub struct WindowLoss {
    /// The total loss.
    pub loss: f64,
    /// Terms and metrics by name.
    pub metrics: Vec<(String, f64)>,
    /// Positions computed.
    pub tokens: u64,
}

/// The models of an experiment, and where the policy's gradient goes.
pub struct Work<'a> {
    /// The models.
    pub models: Models<'a>,
    /// Which activations are recomputed.
    pub recompute: Recompute,
    /// The gradient to add to, flat.
    pub grads: &'a Buffer,
}

/// Adds the gradient of the window's total loss to the models' gradients.
///
/// # Errors
/// Errors of plugins and of the backend. The gradients are then undefined.
pub fn accumulate(
    work: &Work<'_>,
    objectives: &mut Objectives,
    micro_batches: &[PackedBatch],
    marker: &CrashMarker,
) -> Result<WindowLoss> {
    // With rollouts, the objectives have prepared the whole rollout already, and the results are stored with its sequences.
    let joined = match objectives.needs().rollouts {
        true => PreparedArrays::default(),
        false => objectives.prepare(micro_batches, marker)?,
    };
    let objectives = &*objectives;
    let denominators = objectives.denominators(micro_batches, &joined)?;
    let pass = ForwardPass { models: work.models, objectives };
    let step = Step { pass, work, joined: &joined, denominators: &denominators, marker };
    let mut tally = MetricAccumulator::default();
    marker.backend("forward and backward");
    if objectives.coupled() {
        step.coupled(micro_batches, &mut tally)?;
    } else {
        for (packed, part) in micro_batches.iter().zip(MicroBatchRange::all(micro_batches)) {
            if objectives.linear() {
                step.known_cotangents(packed, part, &mut tally)?;
            } else {
                step.with_statistics_first(packed, part, &mut tally)?;
            }
        }
    }
    Ok(WindowLoss {
        loss: tally.loss(objectives, &denominators),
        metrics: tally.metrics(objectives, &denominators),
        tokens: tally.tokens(),
    })
}

/// A pass through the micro-batches of a window.
struct Step<'a> {
    pass: ForwardPass<'a>,
    work: &'a Work<'a>,
    joined: &'a PreparedArrays,
    denominators: &'a Denominators,
    marker: &'a CrashMarker,
}

impl Step<'_> {
    fn keep(&self) -> Keep {
        Keep::ForBackward(self.work.recompute)
    }

    /// Computes the objectives' losses of a batch whose sequences come from `rows`. Afterwards the crash marker names the
    /// backend again.
    fn losses(&self, batch: &Batch<'_>, part: MicroBatchRange, rows: &[u64]) -> Result<Vec<Loss>> {
        let losses = self.pass.objectives.losses(batch, self.joined, part, rows, self.marker)?;
        self.pass.objectives.check_shares(&losses, self.denominators)?;
        self.marker.backend("forward and backward");
        Ok(losses)
    }

    fn cotangents(&self, losses: &[Loss], packed: &PackedBatch) -> Result<TokenCotangents> {
        self.pass.objectives.cotangents(losses, self.denominators, packed, &supervised_rows(packed))
    }

    /// Computes a micro-batch whose cotangents depend only on data: they are computed with zero statistics, before the head
    /// runs.
    fn known_cotangents(
        &self,
        packed: &PackedBatch,
        part: MicroBatchRange,
        tally: &mut MetricAccumulator,
    ) -> Result<()> {
        let (ForwardPass { models, objectives }, rows) = (self.pass, supervised_rows(packed));
        let model = models.policy;
        let batch = |stats| with_statistics(packed, &rows, objectives.statistics(), stats);
        let before = self.losses(&batch(None)?, part, &packed.rows)?;
        let cotangents = self.cotangents(&before, packed)?;
        let forward = model.forward(view(packed), self.keep())?;
        let request = self.pass.request(packed, &rows);
        let (stats, dhidden) = model.head_fused(&forward, &request, &cotangents.as_cotangents(), self.work.grads)?;
        let batch = batch(Some(&stats))?;
        let losses = self.losses(&batch, part, &packed.rows)?;
        for ((active, before), after) in objectives.iter().zip(&before).zip(&losses) {
            contract::linear(&batch, before, after).map_err(|why| broken(&active.id, "loss", why, &packed.rows))?;
        }
        tally.add(packed, &batch, objectives, &losses);
        model.backward(forward, dhidden, self.work.grads)
    }

    /// Computes a micro-batch's statistics, then the cotangents from them.
    fn with_statistics_first(
        &self,
        packed: &PackedBatch,
        part: MicroBatchRange,
        tally: &mut MetricAccumulator,
    ) -> Result<()> {
        let ran = self.pass.run(packed, self.keep())?;
        let losses = self.losses(&ran.batch, part, &packed.rows)?;
        tally.add(packed, &ran.batch, self.pass.objectives, &losses);
        self.pass.backward(ran, &self.cotangents(&losses, packed)?, self.work.grads)
    }

    /// Computes a coupled loss: the statistics of all micro-batches, one call of the loss, then each micro-batch again.
    fn coupled(&self, micro_batches: &[PackedBatch], tally: &mut MetricAccumulator) -> Result<()> {
        let batches = micro_batches.iter().map(|packed| Ok(self.pass.run(packed, Keep::Nothing)?.batch));
        let batches: Vec<Batch<'_>> = batches.collect::<Result<_>>()?;
        let whole = join(micro_batches);
        let batch = join_batches(&batches, &whole);
        let losses = self.losses(&batch, MicroBatchRange::whole(&whole), &whole.rows)?;
        tally.add(&whole, &batch, self.pass.objectives, &losses);
        for (packed, part) in micro_batches.iter().zip(MicroBatchRange::all(micro_batches)) {
            let own: Vec<Loss> = losses.iter().map(|loss| slice(loss, part)).collect();
            let ran = self.pass.run(packed, self.keep())?;
            self.pass.backward(ran, &self.cotangents(&own, packed)?, self.work.grads)?;
        }
        Ok(())
    }
}

/// Returns a loss with only the cotangents of one micro-batch.
fn slice(loss: &Loss, part: MicroBatchRange) -> Loss {
    let mut own = loss.clone();
    for term in &mut own.terms {
        for (statistic, values) in &mut term.cotangents {
            let (first, count) = if statistic == names::SCORE { part.sequences() } else { part.tokens() };
            *values = values.iter().skip(first).take(count).copied().collect();
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Sequence, pack::pack};
    use plugin_api::batch::Scope;

    fn part(lengths: &[usize]) -> PackedBatch {
        let sequences = lengths.iter().map(|length| Sequence {
            ids: vec![1; *length],
            supervised: vec![true; *length],
            reads_last: true,
            ..Default::default()
        });
        pack(&sequences.collect::<Vec<_>>()).unwrap()
    }

    /// Catches offsets of the micro-batches in place of the whole window's, arrays out of order, and cotangents per sequence
    /// that are split as if they were per token.
    #[test]
    fn gotcha_01_a_window_is_joined_and_its_cotangents_cut_where_its_parts_are() {
        let packed = [part(&[2, 3]), part(&[4])];
        let batches: Vec<Batch<'_>> = [(0.0, 5), (5.0, 4)]
            .into_iter()
            .zip(&packed)
            .map(|((first, count), own)| {
                let offsets = own.offsets.iter().map(|o| f64::from(*o)).collect::<Vec<f64>>();
                let logp = (0..count).map(|i| first + f64::from(i)).collect::<Vec<f64>>();
                Batch::new().with(names::OFFSETS, Scope::BATCH, offsets).with_statistic("logp", Scope::TOKEN, logp)
            })
            .collect();
        let joined = join_batches(&batches, &join(&packed));
        assert_eq!(joined.get(names::OFFSETS).unwrap(), [0.0, 2.0, 5.0, 9.0]);
        assert_eq!(joined.get("logp").unwrap(), (0..9).map(f64::from).collect::<Vec<_>>());
        let term = plugin_api::objective::Term {
            name: "a".to_owned(),
            coefficient: 1.0,
            sum: 0.0,
            cotangents: vec![
                ("logp".to_owned(), (0..9).map(f64::from).collect()),
                (names::SCORE.to_owned(), vec![10.0, 20.0, 30.0]),
            ],
        };
        let loss = Loss { terms: vec![term], ..Loss::default() };
        let cut: Vec<_> =
            MicroBatchRange::all(&packed).into_iter().map(|own| slice(&loss, own).terms.remove(0).cotangents).collect();
        assert_eq!((cut[0][0].1.len(), &cut[0][1].1), (5, &vec![10.0, 20.0]));
        assert_eq!((&cut[1][0].1, &cut[1][1].1), (&vec![5.0, 6.0, 7.0, 8.0], &vec![30.0]));
    }
}
