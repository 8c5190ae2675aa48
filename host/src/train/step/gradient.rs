//! The parts of the gradient of one optimizer window; `train.rs` puts them together.
//!
//! There are three routes, chosen by what the objectives declare: cotangents from statistics, cotangents known in advance (the head
//! computes loss and gradient in one pass), and coupled losses (the window runs forward without saving, the loss is called once,
//! then each micro-batch is computed again).

use plugin_api::{
    batch::{Batch, names},
    contract,
    objective::Loss,
};

use super::{
    cotangents::{Denominators, TokenCotangents},
    forward::{ForwardOutput, ForwardPass},
    metrics::{MetricAccumulator, OwnNumbers},
    models::Models,
    window::{PreparedWindow, prepare},
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
    /// Terms and metrics by name, as they are recorded.
    pub metrics: Vec<(String, f64)>,
    /// The numbers of each objective.
    pub of_objectives: Vec<OwnNumbers>,
    /// Positions computed.
    pub tokens: u64,
}

/// The models of an experiment, and where the policy's gradient goes.
pub struct TrainedModels<'a> {
    /// The models.
    pub models: Models<'a>,
    /// Which activations are recomputed.
    pub recompute: Recompute,
    /// The gradient to add to, flat.
    pub grads: &'a Buffer,
}

/// How a window's gradient is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Per micro-batch: statistics, then losses, then cotangents.
    StatisticsFirst,
    /// The losses are linear in their statistics, so their cotangents depend on data alone.
    KnownCotangents,
    /// A loss needs the statistics of the whole window.
    Coupled,
}

/// One micro-batch of a window.
#[derive(Clone, Copy)]
pub struct MicroBatch<'a> {
    /// The batch.
    pub packed: &'a PackedBatch,
    /// Its place in the window.
    pub range: MicroBatchRange,
}

/// A pass through the micro-batches of a window, and the sums over those that are done.
pub struct WindowPass<'a> {
    trained: &'a TrainedModels<'a>,
    models: ForwardPass<'a>,
    window: &'a [PackedBatch],
    prepared: PreparedArrays,
    /// The micro-batches with their statistics, if the loss is coupled and `prepare` needed them already.
    read: Option<Vec<Batch<'static>>>,
    denominators: Denominators,
    sums: MetricAccumulator,
    marker: &'a CrashMarker,
}

impl<'a> WindowPass<'a> {
    /// Calls the objectives' `prepare` and counts the normalisers of the window. With rollouts, the objectives have prepared the whole
    /// rollout already, and the results are stored with its sequences.
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn prepare(
        trained: &'a TrainedModels<'a>,
        objectives: &'a mut Objectives,
        window: &'a [PackedBatch],
        marker: &'a CrashMarker,
    ) -> Result<Self> {
        let PreparedWindow { arrays: prepared, batches } = match objectives.needs().rollouts {
            true => PreparedWindow { arrays: PreparedArrays::default(), batches: None },
            false => prepare(trained.models, objectives, window, marker)?,
        };
        let objectives = &*objectives;
        let read = batches.filter(|_| objectives.coupled());
        let denominators = objectives.denominators(window, &prepared)?;
        let models = ForwardPass { models: trained.models, objectives };
        marker.backend("forward and backward");
        let sums = MetricAccumulator::default();
        Ok(Self { trained, models, window, prepared, read, denominators, sums, marker })
    }

    /// Returns how the objectives' losses let the gradient be computed.
    pub fn route(&self) -> Route {
        match (self.models.objectives.coupled(), self.models.objectives.knows_cotangents(self.window)) {
            (true, _) => Route::Coupled,
            (false, true) => Route::KnownCotangents,
            (false, false) => Route::StatisticsFirst,
        }
    }

    /// Returns the micro-batches of the window.
    pub fn micro_batches(&self) -> impl Iterator<Item = MicroBatch<'a>> + use<'a> {
        let ranges = MicroBatchRange::all(self.window);
        self.window.iter().zip(ranges).map(|(packed, range)| MicroBatch { packed, range })
    }

    /// Runs the models forward, to the statistics that the objectives read.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn forward(&self, micro_batch: &MicroBatch<'_>) -> Result<ForwardOutput> {
        self.models.run(micro_batch.packed, self.keep())
    }

    /// Calls the objectives' losses on data and statistics, and adds them to the window's sums. Afterwards the crash marker names
    /// the backend again.
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn losses(&mut self, batch: &Batch<'_>, of: &MicroBatch<'_>) -> Result<Vec<Loss>> {
        let losses = self.call(batch, of)?;
        self.sums.add(of.packed, batch, self.models.objectives, &losses);
        Ok(losses)
    }

    /// Returns the derivative of the window's total loss by each statistic of the micro-batch.
    ///
    /// # Errors
    /// Errors of plugins.
    pub fn cotangents(&self, losses: &[Loss], of: &MicroBatch<'_>) -> Result<TokenCotangents> {
        let rows = supervised_rows(of.packed);
        self.models.objectives.cotangents(losses, &self.denominators, of.packed, &rows)
    }

    /// Adds the gradients that follow from the cotangents.
    ///
    /// # Errors
    /// Errors of the backend. The gradients are then undefined.
    pub fn backward(&self, forward: ForwardOutput, cotangents: &TokenCotangents) -> Result<()> {
        self.models.backward(forward, cotangents, self.trained.grads)
    }

    /// Computes a micro-batch whose cotangents depend only on data: they are computed with zero statistics, before the head
    /// runs.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    pub fn known_cotangents(&mut self, micro_batch: &MicroBatch<'_>) -> Result<()> {
        let packed = micro_batch.packed;
        let (ForwardPass { models, objectives }, rows) = (self.models, supervised_rows(packed));
        let (model, grads) = (models.policy, self.trained.grads);
        let batch = |stats| with_statistics(packed, &rows, objectives.statistics(), stats);
        let before = self.call(&batch(None)?, micro_batch)?;
        let cotangents = self.cotangents(&before, micro_batch)?;
        let forward = model.forward(view(packed), self.keep())?;
        let request = self.models.request(packed, &rows);
        let (stats, dhidden) = model.head_fused(&forward, &request, &cotangents.as_cotangents(), grads)?;
        let batch = batch(Some(&stats))?;
        let losses = self.losses(&batch, micro_batch)?;
        for ((active, before), after) in objectives.iter().zip(&before).zip(&losses) {
            contract::linear(&batch, before, after).map_err(|why| broken(&active.id, "loss", why, &packed.rows))?;
        }
        model.backward(forward, dhidden, grads)
    }

    /// Computes a coupled loss: the statistics of all micro-batches, one call of the loss, then each micro-batch again.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    pub fn coupled(&mut self) -> Result<()> {
        let batches = match self.read.take() {
            Some(read) => read,
            None => self.models.run_all(self.window)?,
        };
        let packed = &join(self.window);
        let batch = join_batches(&batches, packed);
        let losses = self.losses(&batch, &MicroBatch { packed, range: MicroBatchRange::whole(packed) })?;
        for micro_batch in self.micro_batches() {
            let own: Vec<Loss> = losses.iter().map(|loss| slice(loss, &batch, micro_batch.range)).collect();
            let forward = self.forward(&micro_batch)?;
            self.backward(forward, &self.cotangents(&own, &micro_batch)?)?;
        }
        Ok(())
    }

    /// Returns loss, metrics and positions of the micro-batches so far.
    pub fn total(&self) -> WindowLoss {
        let (objectives, denominators) = (self.models.objectives, &self.denominators);
        let of_objectives = self.sums.of_objectives(objectives, denominators);
        WindowLoss {
            loss: self.sums.loss(objectives, denominators),
            metrics: self.sums.metrics(&of_objectives),
            of_objectives,
            tokens: self.sums.tokens(),
        }
    }

    fn keep(&self) -> Keep {
        Keep::ForBackward(self.trained.recompute)
    }

    /// Calls the losses of a batch whose statistics may be zeros.
    fn call(&self, batch: &Batch<'_>, of: &MicroBatch<'_>) -> Result<Vec<Loss>> {
        let objectives = self.models.objectives;
        let losses = objectives.losses(batch, &self.prepared, of.range, &of.packed.rows, self.marker)?;
        objectives.check_shares(&losses, &self.denominators)?;
        self.marker.backend("forward and backward");
        Ok(losses)
    }
}

/// Returns a loss with only the cotangents of one micro-batch.
fn slice(loss: &Loss, whole: &Batch<'_>, part: MicroBatchRange) -> Loss {
    let mut own = loss.clone();
    for term in &mut own.terms {
        for (statistic, values) in &mut term.cotangents {
            let (first, count) = if statistic == names::SCORE { part.sequences() } else { part.tokens() };
            let cols = whole.find(statistic).map_or(1, |array| array.cols);
            *values = values.iter().skip(first * cols).take(count * cols).copied().collect();
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
        let cut: Vec<_> = MicroBatchRange::all(&packed)
            .into_iter()
            .map(|own| slice(&loss, &joined, own).terms.remove(0).cotangents)
            .collect();
        assert_eq!((cut[0][0].1.len(), &cut[0][1].1), (5, &vec![10.0, 20.0]));
        assert_eq!((&cut[1][0].1, &cut[1][1].1), (&vec![5.0, 6.0, 7.0, 8.0], &vec![30.0]));
    }
}
