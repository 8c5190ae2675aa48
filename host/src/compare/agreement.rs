//! How much two backends differ, step by step.
//!
//! The first step starts from the same bits, so its loss and gradient norm must agree up to rounding. Later steps
//! start from weights that have already drifted apart by rounding. A later step beyond the tolerance therefore
//! proves nothing by itself, which is why the operations of that step are replayed and a noise floor can be
//! measured.

use plugin_api::abi::DType;
use serde::Serialize;

use super::stats::{of_losses, relative};

/// Loss and gradient norm of each step.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Curve {
    /// Loss before the step's update.
    pub loss: Vec<f64>,
    /// Global norm of the gradient before clipping.
    pub grad_norm: Vec<f64>,
    /// A hash of the step's tokens.
    #[serde(skip)]
    pub batch: Vec<u64>,
}

impl Curve {
    /// The first step, counted from 1, whose batch is another one than here: the backends sampled different answers.
    pub fn other_batch(&self, other: &Curve) -> Option<u64> {
        let differs = self.batch.iter().zip(&other.batch).position(|(a, b)| a != b);
        differs.map(|at| at as u64 + 1)
    }

    /// The steps that both have done on the same batches.
    fn in_common(&self, other: &Curve) -> usize {
        let same = self.other_batch(other).map_or(usize::MAX, |step| step as usize - 1);
        same.min(self.loss.len()).min(other.loss.len())
    }

    /// The differences between the losses of these steps.
    pub fn losses_apart(&self, other: &Curve) -> Vec<f64> {
        let pairs = self.loss.iter().zip(&other.loss).take(self.in_common(other));
        pairs.map(|(a, b)| of_losses(*a, *b)).collect()
    }
}

/// Differences up to which a step agrees.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tolerance {
    /// For the loss: relative if it is above 1, else absolute.
    pub loss: f64,
    /// For the gradient norm, relative.
    pub grad_norm: f64,
}

impl Tolerance {
    /// For two compute types: the tolerance of the coarser one.
    pub fn of(a: DType, b: DType) -> Tolerance {
        let (loss, grad_norm) = match [a, b] {
            [DType::BF16, _] | [_, DType::BF16] => (5e-3, 5e-2),
            [DType::F64, DType::F64] => (1e-12, 1e-11),
            _ => (1e-6, 1e-5),
        };
        Tolerance { loss, grad_norm }
    }
}

/// The largest difference over several steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Largest {
    /// The difference.
    pub difference: f64,
    /// The step, counted from 1.
    pub step: u64,
}

/// One backend compared with another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Label of the other backend.
    pub with: String,
    /// The tolerance for agreement.
    pub tolerance: Tolerance,
    /// Difference of the first step's loss.
    pub first_loss: f64,
    /// Relative difference of the first step's gradient norm.
    pub first_grad_norm: f64,
    /// The largest difference between the losses.
    pub loss: Largest,
    /// The largest difference between the gradient norms.
    pub grad_norm: Largest,
    /// The first step beyond the tolerance, counted from 1.
    pub first_beyond: Option<u64>,
    /// The differences between the losses, by step.
    pub losses: Vec<f64>,
    /// The differences between the gradient norms, by step.
    pub grad_norms: Vec<f64>,
}

impl Agreement {
    /// Compares the steps that both backends have done on the same batches; `None` if there is no such step.
    pub fn of(with: &str, base: &Curve, other: &Curve, tolerance: Tolerance) -> Option<Agreement> {
        let losses = base.losses_apart(other);
        let norms = base.grad_norm.iter().zip(&other.grad_norm).take(losses.len());
        let grad_norms: Vec<f64> = norms.map(|(a, b)| relative(*a, *b)).collect();
        let mut steps = losses.iter().zip(&grad_norms);
        let beyond = steps.position(|(loss, norm)| *loss > tolerance.loss || *norm > tolerance.grad_norm);
        Some(Agreement {
            with: with.to_owned(),
            tolerance,
            first_loss: *losses.first()?,
            first_grad_norm: *grad_norms.first()?,
            loss: largest(&losses)?,
            grad_norm: largest(&grad_norms)?,
            first_beyond: beyond.map(|at| at as u64 + 1),
            losses,
            grad_norms,
        })
    }
}

/// The largest difference; the first one if several are equal.
pub fn largest(differences: &[f64]) -> Option<Largest> {
    let all = differences.iter().zip(1..).map(|(difference, step)| Largest { difference: *difference, step });
    all.reduce(|a, b| if b.difference > a.difference { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(loss: &[f64], grad_norm: &[f64]) -> Curve {
        let batch = (0..loss.len() as u64).collect();
        Curve { loss: loss.to_vec(), grad_norm: grad_norm.to_vec(), batch }
    }

    /// Catches steps counted from 0, a gradient norm that is ignored, and steps that only one backend has done.
    #[test]
    fn the_first_step_beyond_the_tolerance_is_reported() {
        let base = curve(&[4.0, 3.0, 2.0, 1.0], &[1.0, 1.0, 1.0, 1.0]);
        let other = curve(&[4.0, 3.0, 2.0 + 1e-3], &[1.0, 1.0 + 1e-4, 1.0]);
        let found = Agreement::of("candle", &base, &other, Tolerance::of(DType::F32, DType::F32)).unwrap();
        assert_eq!((found.first_beyond, found.loss.step, found.grad_norm.step), (Some(2), 3, 2));
        assert_eq!(found.losses.len(), 3);
        assert!((found.loss.difference - 5e-4).abs() < 1e-6, "{found:?}");
    }

    /// Catches steps on other batches that are compared, and a batch that is compared with that of another step.
    #[test]
    fn only_steps_on_the_same_batches_are_compared() {
        let base = curve(&[4.0, 3.0, 2.0], &[1.0; 3]);
        let mut other = curve(&[4.0, 3.0, 1.0], &[1.0; 3]);
        other.batch[2] = 9;
        assert_eq!((base.other_batch(&other), base.other_batch(&base)), (Some(3), None));
        let found = Agreement::of("candle", &base, &other, Tolerance::of(DType::F32, DType::F32)).unwrap();
        assert_eq!((found.losses.len(), found.first_beyond), (2, None));
        other.batch[0] = 9;
        assert_eq!(Agreement::of("candle", &base, &other, found.tolerance), None);
    }

    /// Catches a comparison in which a NaN agrees with everything.
    #[test]
    fn a_nan_loss_is_beyond_every_tolerance() {
        let (base, other) = (curve(&[4.0], &[1.0]), curve(&[f64::NAN], &[1.0]));
        let found = Agreement::of("candle", &base, &other, Tolerance::of(DType::BF16, DType::F32)).unwrap();
        assert_eq!(found.first_beyond, Some(1));
        assert_eq!(Agreement::of("candle", &base, &curve(&[], &[]), found.tolerance), None);
    }
}
