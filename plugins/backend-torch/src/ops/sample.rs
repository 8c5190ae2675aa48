//! Drawing tokens from logits with the host's noise.

use crate::{
    TorchSession,
    fault::{Attempt, require},
    storage::{accumulator, to},
};
use plugin_api::backend::ops;
use tch::{Device, Kind, Tensor};

/// Draws a token per row; its log-probability is that under the whole softmax.
pub fn sample(s: &mut TorchSession, op: &ops::Sample) -> Attempt {
    require(op.temperature >= 0.0, "sample", || format!("temperature {} is negative", op.temperature))?;
    require(op.top_k >= 0, "sample", || format!("top_k {} is negative", op.top_k))?;
    require(op.top_p > 0.0 && op.top_p <= 1.0, "sample", || format!("top_p {} is outside (0, 1]", op.top_p))?;
    require(op.logits.cols > 0 || op.logits.rows == 0, "sample", || "there is no token to draw".into())?;
    if op.logits.rows == 0 {
        return Ok(());
    }
    let logits = s.at(&op.logits)?;
    let mut z = to(&logits, accumulator(logits.f_kind()?))?;
    if op.temperature > 0.0 && op.temperature != 1.0 {
        z = z.f_div_scalar(op.temperature)?;
    }
    let logp = z.f_log_softmax(-1, None)?;
    let token = if op.temperature > 0.0 { draw(s, op, &z, &logp)? } else { z.f_argmax(-1, true)? };
    s.at(&op.logp)?.f_copy_(&logp.f_gather(-1, &token, false)?.f_tr()?)?;
    Ok(s.at(&op.token)?.f_copy_(&token.f_tr()?)?)
}

/// Token ids `[B, 1]`: ranked (the sort is stable, so equal logits keep the lower index first), truncated by top-k and top-p, and
/// the first whose cumulative share of the remaining probability exceeds the noise. Always on the processor, because a device's
/// running sum has no fixed order.
fn draw(s: &TorchSession, op: &ops::Sample, z: &Tensor, logp: &Tensor) -> Attempt<Tensor> {
    let (z, logp) = (&z.f_to_device(Device::Cpu)?, &logp.f_to_device(Device::Cpu)?);
    let (_, ranked) = z.f_sort_stable(true, -1, true)?;
    let reached = to(&logp.f_gather(-1, &ranked, false)?, Kind::Double)?.f_exp_()?.f_cumsum(-1, None)?;
    let count = |condition: &Tensor| condition.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64);
    let vocabulary = z.size()[1];
    let most = if op.top_k > 0 { op.top_k.min(vocabulary) } else { vocabulary };
    // The position of the last remaining token.
    let last = if op.top_p < 1.0 {
        count(&reached.f_lt(op.top_p)?)?.f_clamp_max_(most - 1)?
    } else {
        Tensor::f_full([z.size()[0], 1], most - 1, (Kind::Int64, Device::Cpu))?
    };
    let noise = to(&s.at(&op.noise)?.f_to_device(Device::Cpu)?, Kind::Double)?.f_tr()?;
    let threshold = reached.f_gather(-1, &last, false)?.f_mul_(&noise)?;
    let drawn = count(&reached.f_le_tensor(&threshold)?)?.f_minimum(&last)?;
    Ok(ranked.f_gather(-1, &drawn, false)?.f_to_device(s.device())?)
}
