//! Drawing tokens. Logits are copied to the host: a draw walks down a ranking, which no tensor operation does.

use super::context::{Generic, Outcome};
use crate::kernels::sample::{check, draw};
use candle_core::Tensor;
use plugin_api::backend::ops::Sample;

/// Draws a token per row; its log-probability is that under the whole softmax.
pub fn sample(s: &mut Generic<'_>, op: &Sample) -> Outcome {
    check(op)?;
    if op.logits.rows == 0 {
        return Ok(());
    }
    let (logits, noise) = (s.input(&op.logits)?.to_vec2::<f32>()?, s.input(&op.noise)?.to_vec2::<f32>()?);
    let mut weights = vec![0.0; op.logits.cols as usize];
    let (mut ranked, mut tokens, mut logps) = (Vec::new(), Vec::new(), Vec::new());
    for (z, noise) in logits.iter().zip(&noise[0]) {
        let (token, logp) = draw(op, z, &mut weights, &mut ranked, f64::from(*noise));
        tokens.push(token as u32);
        logps.push(logp);
    }
    s.output_ints(&op.token, &tokens)?;
    let logps = Tensor::from_vec(logps, (1, tokens.len()), s.pool.device())?;
    s.output(&op.logp, &logps)
}
