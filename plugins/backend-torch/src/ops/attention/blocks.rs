//! Attention in plain products, one sequence at a time: a long sequence is split into blocks of queries. Supports every mask, window
//! and cap on every device.

use super::plan::{self, Plan, cap_slope};
use crate::{
    TorchSession,
    fault::{Attempt, Done},
    storage::to,
};
use plugin_api::backend::{
    View,
    ops::{Attention, AttentionBackward, MaskKind},
};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Consecutive queries of one sequence and the keys that any of them may see, counted from the start of the packed batch.
struct Block {
    queries: Range<i64>,
    keys: Range<i64>,
    /// `[queries, keys]`, true where the key is hidden; `None` if all are visible.
    hidden: Option<Tensor>,
}

impl Plan {
    /// The sequence, split so that the scores of a block fit.
    fn blocks(&self, s: &TorchSession, tokens: &Range<i64>, prefix: i64) -> Attempt<Vec<Block>> {
        let length = tokens.end - tokens.start;
        let budget = plan::score_budget(s);
        let step = (budget / (self.heads() * length)).clamp(1, length);
        let mut blocks = Vec::new();
        for first in (0..length).step_by(step as usize) {
            let end = (first + step).min(length);
            let last_key = match self.mask {
                MaskKind::BIDIRECTIONAL => length,
                MaskKind::PREFIX => end.max(prefix.min(length)),
                _ => end,
            };
            let first_key = if self.window > 0 { (first + 1 - self.window).max(0) } else { 0 };
            let hidden = self.hidden(s, first..end, first_key..last_key, prefix)?;
            let from = |range: Range<i64>| tokens.start + range.start..tokens.start + range.end;
            blocks.push(Block { queries: from(first..end), keys: from(first_key..last_key), hidden });
        }
        Ok(blocks)
    }

    /// Which keys the queries do not see, both counted from the sequence's start.
    fn hidden(&self, s: &TorchSession, queries: Range<i64>, keys: Range<i64>, prefix: i64) -> Attempt<Option<Tensor>> {
        let count = |range: Range<i64>| Tensor::f_arange_start(range.start, range.end, (Kind::Int64, s.device()));
        let (i, j) = (count(queries)?.f_unsqueeze(1)?, count(keys)?.f_unsqueeze(0)?);
        let mut hidden = None;
        if self.mask != MaskKind::BIDIRECTIONAL {
            let mut later = j.f_gt_tensor(&i)?;
            if self.mask == MaskKind::PREFIX {
                later = later.f_logical_and(&j.f_ge(prefix)?)?;
            }
            hidden = Some(later);
        }
        if self.window > 0 {
            let long_past = j.f_le_tensor(&i.f_sub_scalar(self.window)?)?;
            hidden = Some(match hidden {
                Some(later) => later.f_logical_or(&long_past)?,
                None => long_past,
            });
        }
        Ok(hidden)
    }
}

/// `y` and `lse` of one sequence; `acc` is the accumulator's kind.
pub fn forward(
    s: &TorchSession,
    op: &Attention,
    plan: &Plan,
    acc: Kind,
    (tokens, prefix): &(Range<i64>, i64),
) -> Attempt {
    for Block { queries, keys, hidden } in plan.blocks(s, tokens, *prefix)? {
        let wide_keys = |view: &View| to(&plan.keys(s, view, &keys, 1)?, acc);
        let mut scores = plan.scores(&to(&plan.queries(s, &op.q, &queries)?, acc)?, &wide_keys(&op.k)?)?;
        if let Some(hidden) = hidden {
            scores.f_masked_fill_(&hidden, f64::NEG_INFINITY).done()?;
        }
        let lse = scores.f_logsumexp([-1i64].as_slice(), true)?;
        let p = scores.f_sub_(&lse)?.f_exp_()?;
        plan.queries(s, &op.y, &queries)?.f_copy_(&plan.product(&p, &wide_keys(&op.v)?)?)?;
        if let Some(view) = &op.lse {
            plan.per_head(s, view, &queries)?.f_copy_(&lse.f_squeeze_dim(-1)?)?;
        }
    }
    Ok(())
}

/// `dq`, `dk` and `dv` of one sequence.
///
/// With `p = exp(score - lse)` and `delta = dy . y`: `dv += p dy`, `dscore = p (dy . v - delta)`, then through the cap
/// and the product.
pub fn backward(
    s: &TorchSession,
    op: &AttentionBackward,
    plan: &Plan,
    acc: Kind,
    (tokens, prefix): &(Range<i64>, i64),
) -> Attempt {
    let zeros = || Tensor::f_zeros([plan.kv_heads, tokens.end - tokens.start, plan.head_dim], (acc, s.device()));
    let (dk, dv) = (zeros()?, zeros()?);
    for block in plan.blocks(s, tokens, *prefix)? {
        let first = block.keys.start - tokens.start;
        let part = |t: &Tensor| t.f_narrow(1, first, block.keys.end - block.keys.start);
        backward_block(s, op, plan, acc, &block, &mut part(&dk)?, &mut part(&dv)?)?;
    }
    let write =
        |view: &View, d: &Tensor| -> Attempt { Ok(plan.keys(s, view, tokens, 1)?.f_squeeze_dim(1)?.f_copy_(d)?) };
    write(&op.dk, &dk)?;
    write(&op.dv, &dv)
}

/// One block's part: writes its `dq`, adds to `dk` and `dv` (`[kv_heads, keys, head_dim]`).
fn backward_block(
    s: &TorchSession,
    op: &AttentionBackward,
    plan: &Plan,
    acc: Kind,
    block: &Block,
    dk: &mut Tensor,
    dv: &mut Tensor,
) -> Attempt {
    let queries = |view: &View| to(&plan.queries(s, view, &block.queries)?, acc);
    let keys = |view: &View| to(&plan.keys(s, view, &block.keys, 1)?, acc);
    let (q, dy, k) = (queries(&op.q)?, queries(&op.dy)?, keys(&op.k)?);
    let delta = dy.f_mul(&queries(&op.y)?)?.f_sum_dim_intlist([-1i64].as_slice(), true, None)?;
    let lse = plan.per_head(s, &op.lse, &block.queries)?.f_unsqueeze(-1)?;
    let mut scores = plan.scores(&q, &k)?;
    let slope = cap_slope(&scores, plan.softcap)?;
    if let Some(hidden) = &block.hidden {
        scores.f_masked_fill_(hidden, f64::NEG_INFINITY).done()?;
    }
    let p = scores.f_sub_(&lse)?.f_exp_()?;
    dv.f_add_(&plan.gathered(&p, &dy)?).done()?;
    let mut dscores = plan.product(&dy, &keys(&op.v)?.f_transpose(2, 3)?)?.f_sub_(&delta)?.f_mul_(&p)?;
    if let Some(slope) = slope {
        dscores.f_mul_(&slope).done()?;
    }
    let dproduct = dscores.f_mul_scalar_(plan.scale)?;
    plan.queries(s, &op.dq, &block.queries)?.f_copy_(&plan.product(&dproduct, &k)?)?;
    dk.f_add_(&plan.gathered(&dproduct, &q)?).done()?;
    Ok(())
}
