//! One optimizer window: from packed micro-batches to a gradient, in the order of DESIGN's "one step, in one breath".
//!
//! Three ways, chosen by what the objectives say of themselves: cotangents known beforehand (the head does loss and
//! gradient in one pass), cotangents from statistics, and coupled losses (the window runs forward without saving, the loss
//! is called once, the micro-batches are replayed).

use plugin_api::{
    batch::{Batch, Scope, names},
    objective::Loss,
};

use super::{
    arrays::{Joined, Part, join, supervised_rows, with_statistics},
    objectives::{Denominators, Objectives, Sums},
    tally::Tally,
    trail::Trail,
};
use crate::{
    data::PackedBatch,
    device::Buffer,
    error::Result,
    model::{BatchView, HeadRequest, HeadStats, Keep, Model, Recompute},
};

/// What a window gave beside the gradient.
pub struct WindowLoss {
    /// The total loss.
    pub loss: f64,
    /// Terms and metrics by name.
    pub metrics: Vec<(String, f64)>,
    /// Positions computed.
    pub tokens: u64,
}

/// A packed batch as the model takes it.
pub fn view(packed: &PackedBatch) -> BatchView<'_> {
    BatchView { tokens: &packed.tokens, positions: &packed.positions, offsets: &packed.offsets }
}

/// Adds the gradient of the window's total loss to `grads`.
///
/// # Errors
/// The plugins' and the backend's own. The gradient is then undefined.
pub fn accumulate(
    model: &Model,
    objectives: &mut Objectives,
    micro_batches: &[PackedBatch],
    recompute: Recompute,
    grads: &Buffer,
    trail: &Trail,
) -> Result<WindowLoss> {
    let joined = objectives.prepare(micro_batches, trail)?;
    let objectives = &*objectives;
    let denominators = objectives.denominators(micro_batches, &joined)?;
    let pass = Pass { model, objectives, joined: &joined, denominators: &denominators, recompute, grads, trail };
    let mut tally = Tally::default();
    trail.backend("forward and backward");
    if objectives.coupled() {
        pass.coupled(micro_batches, &mut tally)?;
    } else {
        for (packed, part) in micro_batches.iter().zip(Part::all(micro_batches)) {
            if objectives.linear() {
                pass.known_cotangents(packed, part, &mut tally)?;
            } else {
                pass.with_statistics_first(packed, part, &mut tally)?;
            }
        }
    }
    Ok(WindowLoss {
        loss: tally.loss(objectives, &denominators),
        metrics: tally.metrics(objectives, &denominators),
        tokens: tally.tokens(),
    })
}

/// One way through the micro-batches of a window.
struct Pass<'a> {
    model: &'a Model,
    objectives: &'a Objectives,
    joined: &'a Joined,
    denominators: &'a Denominators,
    recompute: Recompute,
    grads: &'a Buffer,
    trail: &'a Trail,
}

impl Pass<'_> {
    fn request<'r>(&self, packed: &'r PackedBatch, rows: &'r [i32]) -> HeadRequest<'r> {
        HeadRequest {
            rows: (rows.len() < packed.len()).then_some(rows),
            temperature: self.objectives.temperature(),
            statistics: self.objectives.statistics(),
            ..HeadRequest::new(&packed.targets)
        }
    }

    /// The objectives' losses; the backend is at work again afterwards.
    fn losses(&self, batch: &Batch<'_>, part: Part) -> Result<Vec<Loss>> {
        let losses = self.objectives.losses(batch, self.joined, part, self.trail);
        self.trail.backend("forward and backward");
        losses
    }

    fn cotangents(&self, losses: &[Loss], packed: &PackedBatch, rows: &[i32]) -> Result<Sums> {
        self.objectives.cotangents(losses, self.denominators, packed.len(), rows)
    }

    fn batch(&self, packed: &PackedBatch, rows: &[i32], stats: Option<&HeadStats>) -> Result<Batch<'static>> {
        with_statistics(packed, rows, self.objectives.statistics(), stats)
    }

    /// Cotangents that depend on data alone: asked for with zero statistics, before the head runs.
    fn known_cotangents(&self, packed: &PackedBatch, part: Part, tally: &mut Tally) -> Result<()> {
        let rows = supervised_rows(packed);
        let known = self.losses(&self.batch(packed, &rows, None)?, part)?;
        let cotangents = self.cotangents(&known, packed, &rows)?;
        let forward = self.model.forward(view(packed), Keep::ForBackward(self.recompute))?;
        let request = self.request(packed, &rows);
        let (stats, dhidden) = self.model.head_fused(&forward, &request, &cotangents.as_cotangents(), self.grads)?;
        let batch = self.batch(packed, &rows, Some(&stats))?;
        tally.add(packed, &batch, self.objectives, &self.losses(&batch, part)?);
        self.model.backward(forward, dhidden, self.grads)
    }

    /// Statistics down, cotangents up.
    fn with_statistics_first(&self, packed: &PackedBatch, part: Part, tally: &mut Tally) -> Result<()> {
        let rows = supervised_rows(packed);
        let forward = self.model.forward(view(packed), Keep::ForBackward(self.recompute))?;
        let head = self.model.head_stats(&forward, &self.request(packed, &rows))?;
        let batch = self.batch(packed, &rows, Some(&head.stats))?;
        let losses = self.losses(&batch, part)?;
        tally.add(packed, &batch, self.objectives, &losses);
        let cotangents = self.cotangents(&losses, packed, &rows)?;
        let dhidden = self.model.head_backward(head, &cotangents.as_cotangents(), self.grads)?;
        self.model.backward(forward, dhidden, self.grads)
    }

    /// A loss that couples the window: statistics of all micro-batches, one call, then each micro-batch once more.
    fn coupled(&self, micro_batches: &[PackedBatch], tally: &mut Tally) -> Result<()> {
        let mut stats = Vec::with_capacity(micro_batches.len());
        for packed in micro_batches {
            let forward = self.model.forward(view(packed), Keep::Nothing)?;
            let rows = supervised_rows(packed);
            stats.push(self.model.head_stats(&forward, &self.request(packed, &rows))?.stats);
        }
        let whole = join(micro_batches);
        let parts: Vec<Batch<'_>> = micro_batches
            .iter()
            .zip(&stats)
            .map(|(packed, stats)| self.batch(packed, &supervised_rows(packed), Some(stats)))
            .collect::<Result<_>>()?;
        let batch = join_batches(&parts, &whole);
        let losses = self.losses(&batch, Part::whole(&whole))?;
        tally.add(&whole, &batch, self.objectives, &losses);
        let mut start = 0;
        for packed in micro_batches {
            let own: Vec<Loss> = losses.iter().map(|loss| slice(loss, start, packed.len())).collect();
            start += packed.len();
            let rows = supervised_rows(packed);
            let cotangents = self.cotangents(&own, packed, &rows)?;
            let forward = self.model.forward(view(packed), Keep::ForBackward(self.recompute))?;
            let head = self.model.head_stats(&forward, &self.request(packed, &rows))?;
            let dhidden = self.model.head_backward(head, &cotangents.as_cotangents(), self.grads)?;
            self.model.backward(forward, dhidden, self.grads)?;
        }
        Ok(())
    }
}

/// The arrays of the parts end to end; offsets are those of the whole.
fn join_batches(parts: &[Batch<'_>], whole: &PackedBatch) -> Batch<'static> {
    let Some(first) = parts.first() else { return Batch::new() };
    first.arrays().iter().fold(Batch::new(), |batch, array| {
        let mut joined = plugin_api::batch::Array {
            name: array.name.to_string().into(),
            scope: array.scope,
            differentiable: array.differentiable,
            cols: array.cols,
            data: Vec::new().into(),
        };
        joined.data = if array.name == names::OFFSETS {
            whole.offsets.iter().map(|o| f64::from(*o)).collect::<Vec<_>>().into()
        } else {
            let same = parts.iter().filter_map(|p| p.find(&array.name));
            same.flat_map(|a| a.data.iter().copied()).collect::<Vec<_>>().into()
        };
        debug_assert!(array.scope != Scope::BATCH || array.name == names::OFFSETS);
        batch.with_array(joined)
    })
}

/// A loss with the cotangents of tokens `start..start + len` alone.
fn slice(loss: &Loss, start: usize, len: usize) -> Loss {
    let mut own = loss.clone();
    for term in &mut own.terms {
        for (_, values) in &mut term.cotangents {
            *values = values.iter().skip(start).take(len).copied().collect();
        }
    }
    own
}
