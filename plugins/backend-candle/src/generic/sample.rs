//! Drawing tokens. Logits are copied to the host: a draw walks down a ranking, which no tensor operation does.

use super::context::{Generic, Outcome};
use crate::kernels::sample::{check, draw};
use candle_core::Tensor;
use plugin_api::backend::ops::Sample;

/// Draws a token per row.
pub fn sample(s: &mut Generic<'_>, op: &Sample) -> Outcome {
    check(op)?;
    if op.logits.rows == 0 {
        return Ok(());
    }
    let (logits, noise) = (s.input(&op.logits)?.to_vec2::<f32>()?, s.input(&op.noise)?.to_vec2::<f32>()?);
    let mut weights = vec![0.0; op.logits.cols as usize];
    let (mut ranked, mut tokens) = (Vec::new(), Vec::new());
    let [mut logps, mut kept_logps, mut kept_entropies] = [(); 3].map(|()| Vec::new());
    for (z, noise) in logits.iter().zip(&noise[0]) {
        let drawn = draw(op, z, &mut weights, &mut ranked, f64::from(*noise));
        tokens.push(drawn.token as u32);
        logps.push(drawn.logp);
        kept_logps.push(drawn.kept_logp);
        kept_entropies.push(drawn.kept_entropy);
    }
    s.output_ints(&op.token, &tokens)?;
    for (view, values) in [(Some(op.logp), logps), (op.kept_logp, kept_logps), (op.kept_entropy, kept_entropies)] {
        let row = Tensor::from_vec(values, (1, tokens.len()), s.pool.device())?;
        s.output_opt(&view, &row)?;
    }
    Ok(())
}
