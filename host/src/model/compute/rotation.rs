//! The tables of cosines and sines for rotary position embeddings.

use crate::capacity;
use crate::device::{Device, Tensor};
use crate::error::{Error, Result};
use crate::families::family::Positions;
use crate::model::shape::config::ModelConfig;
use crate::model::shape::rope::Rope;

/// Cosines and sines by position and pair.
#[derive(Clone)]
pub(in crate::model) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// The tables of all layers.
#[derive(Clone)]
pub(in crate::model) struct Rotations {
    tables: Vec<Rotation>,
    /// Each layer's table, if it rotates queries and keys.
    of_layer: Vec<Option<usize>>,
}

impl Rotations {
    pub(in crate::model) fn new(device: &Device, config: &ModelConfig) -> Result<Rotations> {
        let mut rotations = Rotations { tables: Vec::new(), of_layer: Vec::new() };
        if config.family.positions != Positions::Rotary {
            return Ok(rotations);
        }
        let mut ropes: Vec<&Rope> = Vec::new();
        for layer in 0..config.layers as usize {
            let table = config.rope(layer).map(|rope| {
                ropes.iter().position(|known| *known == rope).unwrap_or_else(|| {
                    ropes.push(rope);
                    ropes.len() - 1
                })
            });
            rotations.of_layer.push(table);
        }
        for rope in ropes {
            rotations.tables.push(Rotation::new(device, config, rope)?);
        }
        Ok(rotations)
    }

    /// The table of a layer, if it rotates queries and keys.
    pub(super) fn layer(&self, layer: usize) -> Option<&Rotation> {
        self.tables.get(self.of_layer.get(layer).copied().flatten()?)
    }
}

impl Rotation {
    fn new(device: &Device, config: &ModelConfig, rope: &Rope) -> Result<Rotation> {
        let (frequencies, amplitude) = (rope.frequencies(config.head_dim), rope.amplitude());
        let pairs = frequencies.len() as u64;
        // Cosines and sines are computed in f64 first.
        capacity::check(2 * 8 * config.context * pairs).map_err(|why| {
            Error::request(format!(
                "the tables of rotations for the model's context length of {} tokens: {why}",
                config.context
            ))
            .with_hint("lower the context length (model.context, or max_position_embeddings in config.json)")
        })?;
        let angles = (0..config.context)
            .flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency));
        let sines = angles.map(f64::sin_cos).map(|(sin, cos)| (amplitude * sin, amplitude * cos));
        let (sin, cos): (Vec<f64>, Vec<f64>) = sines.unzip();
        let table = |values: &[f64]| -> Result<Tensor> {
            let table = device.tensor_of(device.accumulator(), config.context, pairs)?;
            table.buffer().upload(0, values)?;
            Ok(table)
        };
        Ok(Rotation { cos: table(&cos)?, sin: table(&sin)? })
    }
}
