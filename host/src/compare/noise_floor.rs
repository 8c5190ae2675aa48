//! The noise floor: how much a backend's run differs from a second run of the same backend in which one weight
//! starts one unit in the last place of the compute type away. This is the effect of rounding alone on training, with which the
//! difference of two backends is compared.

use plugin_api::abi::DType;
use serde::Serialize;

use super::{
    agreement::{Curve, Largest, largest},
    backend_run::{BackendRun, Entry, Failure},
};
use crate::{
    data::TrainingData,
    error::{Error, Result},
    model::Model,
};

/// The difference between the two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoiseFloor {
    /// The backend of both runs.
    pub backend: String,
    /// The weight that was moved.
    pub weight: String,
    /// The largest difference between the losses; `None` if the two have no step in common.
    pub loss: Option<Largest>,
    /// The differences between the losses, by step.
    pub losses: Vec<f64>,
    /// Why one of the runs failed.
    pub failure: Option<Failure>,
}

impl NoiseFloor {
    /// The result for a backend that failed.
    pub fn failed(backend: String, failure: Failure) -> NoiseFloor {
        NoiseFloor { backend, weight: String::new(), loss: None, losses: Vec::new(), failure: Some(failure) }
    }
}

/// Runs the backend once with one weight moved, and once unchanged unless `known` already holds that curve.
///
/// # Errors
/// Request errors.
pub fn measure(entry: &Entry, known: Option<&Curve>, steps: u64, data: &TrainingData, tag: u16) -> Result<NoiseFloor> {
    let mut failure = None;
    let base = match known {
        Some(curve) => curve.clone(),
        None => {
            let mut run = BackendRun::open(entry, tag, data)?;
            run.run_steps(steps, true);
            failure = run.failure;
            run.curve
        }
    };
    let mut moved = BackendRun::open(entry, tag + 1, data)?;
    entry.mark.begin(0).backend("move one weight");
    let weight =
        moved.learner().map(|learner| move_one_weight(&learner.model, entry.dtype())).transpose()?.unwrap_or_default();
    moved.run_steps(steps, true);
    let losses = base.losses_apart(&moved.curve);
    let failure = failure.or(moved.failure);
    Ok(NoiseFloor { backend: entry.label.clone(), weight, loss: largest(&losses), losses, failure })
}

/// Moves the first element of the matrix in the middle of the model by one unit in the last place of the compute type, away from
/// zero, and returns its name. A matrix in the middle is used because an embedding's row may belong to a token that never
/// occurs.
fn move_one_weight(model: &Model, compute: DType) -> Result<String> {
    let matrices: Vec<_> = model.layout().parameters().iter().filter(|parameter| parameter.matrix).collect();
    let parameter = matrices.get(matrices.len() / 2).ok_or_else(|| Error::run("the model has no matrix"))?;
    let (params, at) = (model.params(), parameter.offset);
    let bytes = params.download_raw(at, 1)?;
    let moved: Vec<u8> = match params.dtype() {
        DType::F64 => {
            bytes.as_chunks::<8>().0.iter().flat_map(|b| u64::from_le_bytes(*b).wrapping_add(1).to_le_bytes()).collect()
        }
        _ => {
            // The copy in bf16 has the upper half of the bits.
            let unit = if compute == DType::BF16 { 1 << 16 } else { 1 };
            let moved = |b: &[u8; 4]| u32::from_le_bytes(*b).wrapping_add(unit).to_le_bytes();
            bytes.as_chunks::<4>().0.iter().flat_map(moved).collect()
        }
    };
    params.upload_raw(at, &moved)?;
    model.refresh_shadow()?;
    Ok(format!("{}[0, 0]", parameter.name))
}
