//! The tables of cosines and sines for rotary position embeddings.

use crate::capacity;
use crate::device::{Device, Tensor};
use crate::error::{Error, Result};
use crate::families::family::Positions;
use crate::model::shape::config::ModelConfig;

/// Cosines and sines by position and pair.
pub(in crate::model) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

impl Rotation {
    pub(in crate::model) fn new(device: &Device, config: &ModelConfig) -> Result<Option<Rotation>> {
        if config.family.positions != Positions::Rotary {
            return Ok(None);
        }
        let pairs = config.head_dim / 2;
        // Cosines and sines are computed in f64 first.
        capacity::check(2 * 8 * config.context * pairs).map_err(|why| {
            Error::request(format!(
                "the tables of rotations for the model's context length of {} tokens: {why}",
                config.context
            ))
            .with_hint("lower the context length (model.context, or max_position_embeddings in config.json)")
        })?;
        let frequencies = config.rope.frequencies(config.head_dim);
        let angles = (0..config.context)
            .flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency));
        let (sin, cos): (Vec<f64>, Vec<f64>) = angles.map(f64::sin_cos).unzip();
        let table = |values: &[f64]| -> Result<Tensor> {
            let table = device.tensor_of(device.accumulator(), config.context, pairs)?;
            table.buffer().upload(0, values)?;
            Ok(table)
        };
        Ok(Some(Rotation { cos: table(&cos)?, sin: table(&sin)? }))
    }
}
