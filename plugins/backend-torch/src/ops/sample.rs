//! Drawing tokens from logits with the host's noise.

use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::{accumulator, to},
};
use plugin_api::backend::ops;
use tch::{Device, Kind, Tensor};

/// Draws a token per row.
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
    let (token, ranking) = if op.temperature > 0.0 {
        let ranking = Ranking::of(s, op, &z, &logp)?;
        (ranking.draw(s, op)?, Some(ranking))
    } else {
        (z.f_argmax(-1, true)?, None)
    };
    s.at(&op.logp)?.f_copy_(&logp.f_gather(-1, &token, false)?.f_tr()?)?;
    s.at(&op.token)?.f_copy_(&token.f_tr()?)?;
    write_kept(s, op, &logp, &token, ranking)
}

/// The logarithms of the kept tokens' shares: their log-probability and entropy. Both are 0 for a greedy draw.
fn write_kept(s: &TorchSession, op: &ops::Sample, logp: &Tensor, token: &Tensor, ranking: Option<Ranking>) -> Attempt {
    let (kept_logp, kept_entropy) = (s.at_opt(&op.kept_logp)?, s.at_opt(&op.kept_entropy)?);
    if kept_logp.is_none() && kept_entropy.is_none() {
        return Ok(());
    }
    let shares = match ranking {
        // Without truncation the shares are the probabilities themselves.
        Some(_) if !is_truncated(op) => logp.shallow_clone(),
        Some(ranking) => ranking.kept(logp)?.f_log_softmax(-1, None)?,
        None => {
            for mut zero in kept_logp.into_iter().chain(kept_entropy) {
                zero.f_zero_().done()?;
            }
            return Ok(());
        }
    };
    if let Some(mut row) = kept_logp {
        row.f_copy_(&shares.f_gather(-1, token, false)?.f_tr()?)?;
    }
    if let Some(mut row) = kept_entropy {
        let p = shares.f_exp()?;
        let terms = shares.f_mul(&p)?.f_masked_fill_(&p.f_eq(0.0)?, 0.0)?;
        row.f_copy_(&terms.f_sum_dim_intlist([-1i64].as_slice(), true, None)?.f_neg_()?.f_tr()?)?;
    }
    Ok(())
}

fn is_truncated(op: &ops::Sample) -> bool {
    op.top_p < 1.0 || (op.top_k > 0 && (op.top_k as u64) < op.logits.cols)
}

/// The tokens of each row by descending logit. Always on the processor, because a device's running sum has no fixed order.
struct Ranking {
    /// Ids; the sort is stable, so equal logits keep the lower index first.
    ranked: Tensor,
    /// Cumulative probabilities.
    reached: Tensor,
    /// The position of the last remaining token, `[B, 1]`.
    last: Tensor,
}

/// The number of places in each row at which a condition holds.
fn count(condition: &Tensor) -> Attempt<Tensor> {
    Ok(condition.f_sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)?)
}

impl Ranking {
    /// Ranks the tokens, and truncates by top-k and top-p.
    fn of(s: &TorchSession, op: &ops::Sample, z: &Tensor, logp: &Tensor) -> Attempt<Ranking> {
        let (z, logp) = (&s.to_host(z)?, &s.to_host(logp)?);
        let (_, ranked) = z.f_sort_stable(true, -1, true)?;
        let reached = to(&logp.f_gather(-1, &ranked, false)?, Kind::Double)?.f_exp_()?.f_cumsum(-1, None)?;
        let vocabulary = z.size()[1];
        let most = if op.top_k > 0 { op.top_k.min(vocabulary) } else { vocabulary };
        let last = if op.top_p < 1.0 {
            count(&reached.f_lt(op.top_p)?)?.f_clamp_max_(most - 1)?
        } else {
            Tensor::f_full([z.size()[0], 1], most - 1, (Kind::Int64, Device::Cpu))?
        };
        Ok(Ranking { ranked, reached, last })
    }

    /// Token ids `[B, 1]`: the first whose cumulative share of the remaining probability exceeds the noise.
    #[expect(clippy::disallowed_methods, reason = "no part of a training step")]
    fn draw(&self, s: &TorchSession, op: &ops::Sample) -> Attempt<Tensor> {
        let noise = to(&s.to_host(&s.at(&op.noise)?)?, Kind::Double)?.f_tr()?;
        let threshold = self.reached.f_gather(-1, &self.last, false)?.f_mul_(&noise)?;
        let drawn = count(&self.reached.f_le_tensor(&threshold)?)?.f_minimum(&self.last)?;
        Ok(self.ranked.f_gather(-1, &drawn, false)?.f_to_device(s.device())?)
    }

    /// `logp` with minus infinity at the tokens that do not remain.
    #[expect(clippy::disallowed_methods, reason = "no part of a training step")]
    fn kept(&self, logp: &Tensor) -> Attempt<Tensor> {
        let vocabulary = self.ranked.size()[1];
        let place = Tensor::f_arange(vocabulary, (Kind::Int64, Device::Cpu))?;
        let dropped = place.f_unsqueeze(0)?.f_gt_tensor(&self.last)?;
        let dropped = dropped.f_zeros_like()?.f_scatter_(1, &self.ranked, &dropped)?;
        Ok(logp.f_masked_fill(&dropped.f_to_device(logp.device())?, f64::NEG_INFINITY)?)
    }
}
