//! One token per row of logits, drawn on the device.

use plugin_api::abi::DType;
use plugin_api::backend::ops::Sample;

use crate::device::Tensor;
use crate::error::Result;
use crate::model::Model;

/// How tokens are drawn, as in the options of a generation.
pub(super) struct Sampling {
    pub temperature: f64,
    pub top_k: usize,
    pub top_p: f64,
}

/// A drawn token with its numbers, as in a completion.
pub(super) struct Draw {
    pub token: i32,
    pub logp: f64,
    pub kept_logp: f64,
    pub kept_entropy: f64,
}

/// Draws one token per row of logits.
pub(super) fn sample(model: &Model, logits: &Tensor, sampling: &Sampling, noise: &[f64]) -> Result<Vec<Draw>> {
    let device = model.device();
    let rows = logits.row_count();
    let noise = device.floats(noise)?;
    let token = device.tensor_of(DType::I32, 1, rows)?;
    let numbers = device.tensor_of(device.accumulator(), 3, rows)?;
    device.call(&Sample {
        logits: logits.view(),
        noise: noise.view(),
        token: token.view(),
        logp: numbers.rows(0..1),
        kept_logp: Some(numbers.rows(1..2)),
        kept_entropy: Some(numbers.rows(2..3)),
        temperature: sampling.temperature,
        top_k: sampling.top_k as i64,
        top_p: sampling.top_p,
    })?;
    let (tokens, numbers) = (token.to_ints()?, numbers.to_vec()?);
    let number = |row: usize, at: usize| numbers[row * tokens.len() + at];
    let draw = |(at, token): (usize, &i32)| Draw {
        token: *token,
        logp: number(0, at),
        kept_logp: number(1, at),
        kept_entropy: number(2, at),
    };
    Ok(tokens.iter().enumerate().map(draw).collect())
}
