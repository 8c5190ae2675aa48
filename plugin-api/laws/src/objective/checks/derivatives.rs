//! The laws of derivatives: cotangents are the derivatives of the sums with detached values held constant, and values that are
//! declared as detached are detached.

use crate::Agreement;
use crate::objective::{
    case::Case,
    compare::{Alike, Flat},
    outcome::{Fault, Held, Outcome, fault},
    windows::{Values, sequences},
};
use ndarray::{Array1, ArrayD};
use plugin_api::{
    batch::{Array, Batch, Scope},
    manifest::{DataKind, ObjectiveManifest, StopGradient},
    objective::{Loss, Objective},
    tape::{CheckError, Detached, gradient_error, record_detached, replay_detached},
};

/// Each term's cotangents are the derivatives of its sum, with detached values held at the base point.
pub(in crate::objective) fn cotangents(case: &Case<'_>) -> Outcome {
    let (mut checked, mut held) = (0, 0);
    let mut worst = Agreement::new(0.0, case.laws.tolerance.relative);
    for (objective, batch) in points(case)? {
        let (loss, detached) = base(objective.as_ref(), &batch)?;
        held = held.max(detached.len());
        let whole = Flat::of(case.manifest(), &loss, &batch)?;
        let statistics: Vec<&Array<'_>> = batch.arrays().iter().filter(|a| a.differentiable).collect();
        let point: Vec<(&str, ArrayD<f64>)> = statistics.iter().map(|a| (a.name.as_ref(), vector(&a.data))).collect();
        for term in whole.terms.keys() {
            let claimed = |a: &&Array<'_>| whole.cotangents.get(&format!("{term}/{}", a.name)).map(vector);
            let claimed = statistics.iter().map(claimed).collect::<Result<Vec<_>, _>>()?;
            checked += claimed.iter().map(ArrayD::len).sum::<usize>();
            let sum = |at: &[ArrayD<f64>]| sum_at(objective.as_ref(), &batch, at, term, &detached);
            let error = gradient_error(&point, &claimed, case.laws.tolerance, sum);
            let error = error.map_err(|e| mismatch(term, &e, case.laws.tolerance.relative).shown_by(&batch))?;
            worst = worst.worse(Agreement::new(error * worst.limit, worst.limit));
        }
    }
    let held = if held > 0 { format!(", {held} detached values held constant") } else { String::new() };
    Ok(Held { note: format!("{checked} derivatives{held}"), agreement: Some(worst) })
}

/// An instance and a batch that is ready for its `loss`.
type Point = (Box<dyn Objective>, Batch<'static>);

/// Where derivatives are checked: at every window, and at the first one with the trained models' statistics shifted well up and
/// well down. A clamp (KTO's reference point is never below 0) is then on one side in one of them, and on the other side in the
/// other.
fn points(case: &Case<'_>) -> Result<Vec<Point>, Fault> {
    let mut all = case.windows().map(|draw| case.ready(draw)).collect::<Result<Vec<_>, _>>()?;
    for by in [1.5, -1.5] {
        let (objective, batch) = case.ready(case.first())?;
        let shifted = case.fill(&batch, Values::Shifted(case.first(), by))?;
        all.push((objective, shifted));
    }
    Ok(all)
}

/// Why a comparison of two halves of a batch does not hold.
enum Between {
    /// The gradient of one half depends on the other.
    Flows(Fault),
    /// The loss of the changed batch could not be computed or compared.
    Fails(Fault),
}

impl<E: Into<Fault>> From<E> for Between {
    fn from(error: E) -> Self {
        Between::Fails(error.into())
    }
}

/// Values that are declared as detached are detached, under their names. For labelled answers no gradient flows from one row into
/// another: where rows meet (KTO's reference point), the meeting point is a constant. In other coupled losses rows may meet in the
/// gradient on purpose, as in contrastive ones: this is reported as a note.
pub(in crate::objective) fn stop_gradients(case: &Case<'_>) -> Outcome {
    let (mut count, mut flow) = (0, false);
    for (objective, batch) in points(case)? {
        let (loss, detached) = base(objective.as_ref(), &batch)?;
        count = count.max(detached.len());
        all_detached(case.manifest(), &detached).map_err(|fault| fault.shown_by(&batch))?;
        if case.coupled() {
            let flows = flows_between_rows(case, objective.as_ref(), &batch, &loss, &detached);
            match flows {
                Err(Between::Flows(fault)) if case.manifest().data == DataKind::UNPAIRED => {
                    return Err(fault.shown_by(&batch));
                }
                Err(Between::Fails(fault)) => return Err(fault.shown_by(&batch)),
                flows => flow |= flows.is_err(),
            }
        }
    }
    let count = if count == 0 { String::new() } else { format!("{count} detached values") };
    let flow = flow.then(|| {
        "the gradient flows from one row into another; where a statistic of the batch is meant as a constant, detach it and declare \
         it in `stop_gradients`"
            .to_owned()
    });
    Ok(Held::note([count].into_iter().filter(|text| !text.is_empty()).chain(flow).collect::<Vec<_>>().join("; ")))
}

/// Whether the loss detached everything that the manifest declares as held constant.
pub(in crate::objective) fn all_detached(manifest: &ObjectiveManifest, detached: &[Detached]) -> Result<(), Fault> {
    let lost = |spec: &&StopGradient| !detached.iter().any(|found| found.name == spec.name);
    match manifest.stop_gradients.iter().find(lost) {
        None => Ok(()),
        Some(StopGradient { name, .. }) => fault(format!(
            "the manifest says that `{name}` is held constant in the gradient, but `loss` never detaches it: \
             `x.detach_as(\"{name}\")` on a tape, `stop_gradient(\"{name}\", values)` by hand"
        )),
    }
}

/// Whether the cotangents of the first half of the rows change with the statistics of the others, with all detached values held.
fn flows_between_rows(
    case: &Case<'_>,
    objective: &dyn Objective,
    batch: &Batch<'_>,
    loss: &Loss,
    detached: &[Detached],
) -> Result<(), Between> {
    let units = sequences::units(batch)?;
    let front: Vec<usize> = units[..units.len() / 2].concat();
    let moved = case.fill(batch, Values::Near(0xf10))?;
    let mixed =
        moved.arrays().iter().filter(|a| a.differentiable).try_fold(sequences::owned(batch), |all, array| {
            let data = of_sequences(batch, array, &front)?;
            Ok::<_, plugin_api::Error>(all.with_array(sequences::with_data(array, data)))
        })?;
    let found = replay_detached(detached, || objective.loss(&mixed)).map_err(Fault::from)??;
    let half = |loss: &Loss, batch: &Batch<'_>| -> Result<Flat, Fault> {
        let flat = Flat::of(case.manifest(), loss, batch)?;
        Ok(Flat { cotangents: sequences::select(&flat.cotangents, &front)?, ..flat })
    };
    let same = half(loss, batch)?.same_cotangents(&half(&found, &mixed)?, Alike::Rounding);
    same.map(drop).map_err(|fault| {
        Between::Flows(fault.within(
            "the gradient by one labelled answer flows through the others (what they meet in, such as KTO's reference \
             point, is a constant of the gradient: `detach_as` or `stop_gradient`)",
        ))
    })
}

/// The numbers of `moved`, except those of the sequences `kept`, which are taken from `batch`.
fn of_sequences(batch: &Batch<'_>, moved: &Array<'_>, kept: &[usize]) -> plugin_api::Result<Vec<f64>> {
    let (offsets, before, mut data) = (batch.offsets()?, batch.get(&moved.name)?, moved.data.to_vec());
    for s in kept {
        let rows = if moved.scope == Scope::TOKEN { offsets[*s]..offsets[*s + 1] } else { *s..*s + 1 };
        let place = rows.start * moved.cols..rows.end * moved.cols;
        data[place.clone()].copy_from_slice(&before[place]);
    }
    Ok(data)
}

/// The loss at the base point, with the values it detaches.
pub(in crate::objective) fn base(objective: &dyn Objective, batch: &Batch<'_>) -> Result<(Loss, Vec<Detached>), Fault> {
    let (loss, detached) = record_detached(|| objective.loss(batch));
    Ok((loss?, detached))
}

/// A difference that is not the claimed derivative, in numbers.
pub(in crate::objective) fn mismatch(term: &str, error: &CheckError, limit: f64) -> Fault {
    match error {
        CheckError::Mismatch { claimed, measured, .. } => {
            let apart = (claimed - measured).abs() / claimed.abs().max(measured.abs()).max(f64::MIN_POSITIVE);
            Fault::measured(format!("term `{term}`: {error}"), Agreement::new(apart, limit))
        }
        _ => Fault::from(format!("term `{term}`: {error}")),
    }
}

pub(in crate::objective) fn vector(values: &[f64]) -> ArrayD<f64> {
    Array1::from_vec(values.to_vec()).into_dyn()
}

/// The sum of `term` for the differentiable statistics `at` and the detached values of the base point.
pub(in crate::objective) fn sum_at(
    objective: &dyn Objective,
    batch: &Batch<'_>,
    at: &[ArrayD<f64>],
    term: &str,
    detached: &[Detached],
) -> Result<f64, String> {
    let statistics = batch.arrays().iter().filter(|a| a.differentiable);
    let moved = statistics.zip(at).fold(sequences::owned(batch), |all, (array, values)| {
        all.with_array(sequences::with_data(array, values.iter().copied().collect()))
    });
    let loss = replay_detached(detached, || objective.loss(&moved))?.map_err(|e| e.to_string())?;
    let found = loss.terms.iter().find(|t| t.name == term);
    found.map(|t| t.sum).ok_or_else(|| "the term is gone where a statistic moves".to_owned())
}
