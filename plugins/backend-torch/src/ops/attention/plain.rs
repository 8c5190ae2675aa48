//! Softmax attention within packed sequences, and the path in plain products that supports every mask, window and cap on every
//! device. Plain causal and bidirectional attention use libtorch's flash kernels ([`super::flash`] on the processor,
//! [`super::packed`] on CUDA).

use super::{
    flash, packed,
    plan::{Plan, cap_, cap_slope, check_heads},
};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require},
    storage::{accumulator, to},
};
use plugin_api::backend::{
    View,
    ops::{Attention, AttentionBackward, MaskKind},
};
use std::ops::Range;
use tch::{Kind, Tensor};

macro_rules! plan {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        check_heads($name, op.heads, op.kv_heads, op.head_dim, op.window)?;
        if !MaskKind::ALL.iter().any(|(mask, _)| *mask == op.mask) {
            return Err(op.mask.unknown($name).into());
        }
        let is_prefix = op.mask == MaskKind::PREFIX;
        require(!is_prefix || op.prefix.is_some(), $name, || "mask PREFIX needs `prefix`".into())?;
        let ranges = s.ranges($name, "offsets", &op.offsets, op.q.rows)?;
        let prefix = match op.prefix.filter(|_| is_prefix) {
            Some(prefix) => s.ints(&prefix)?.to_vec(),
            None => vec![0; ranges.len()],
        };
        Plan {
            kv_heads: op.kv_heads,
            group: op.heads / op.kv_heads,
            head_dim: op.head_dim,
            scale: op.scale,
            softcap: op.softcap,
            mask: op.mask,
            window: op.window,
            sequences: ranges
                .into_iter()
                .zip(prefix.into_iter().map(i64::from))
                .filter(|(r, _)| !r.is_empty())
                .collect(),
        }
    }};
}

/// Maximum number of scores at a time on the plain path.
const SCORES_CPU: i64 = 1 << 22;
const SCORES_DEVICE: i64 = 1 << 26;

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
        let budget = if s.on_cpu() { SCORES_CPU } else { SCORES_DEVICE };
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

    /// Capped scores `[kv_heads, group, queries, keys]`, hidden ones included.
    fn scores(&self, q: &Tensor, k: &Tensor) -> Attempt<Tensor> {
        let mut scores = self.product(q, &k.f_transpose(2, 3)?)?.f_mul_scalar_(self.scale)?;
        cap_(&mut scores, self.softcap)?;
        Ok(scores)
    }

    /// `a [kv_heads, group, rows, n] b [kv_heads, 1, n, m]`: one product per key-value head.
    fn product(&self, a: &Tensor, b: &Tensor) -> Attempt<Tensor> {
        let (rows, n) = (a.size()[2], a.size()[3]);
        let flat = a.f_reshape([self.kv_heads, self.group * rows, n])?;
        Ok(flat.f_bmm(&b.f_squeeze_dim(1)?)?.f_view([self.kv_heads, self.group, rows, b.size()[3]])?)
    }

    /// `sum over group and rows of a [kv_heads, group, rows, n]^T b [kv_heads, group, rows, m]`.
    fn gathered(&self, a: &Tensor, b: &Tensor) -> Attempt<Tensor> {
        let flat = |t: &Tensor| t.f_reshape([self.kv_heads, self.group * t.size()[2], t.size()[3]]);
        Ok(flat(a)?.f_transpose(1, 2)?.f_bmm(&flat(b)?)?)
    }
}

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
pub fn forward(s: &mut TorchSession, op: &Attention) -> Attempt {
    let plan = plan!(s, op, "attention");
    if flash::serves(s, &plan) {
        return flash::forward(s, op, &plan);
    }
    let kind = s.at(&op.q)?.f_kind()?;
    if packed::serves(s, &plan, kind) {
        return packed::forward(s, op, &plan);
    }
    let acc = accumulator(kind);
    for (tokens, prefix) in &plan.sequences {
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
    }
    Ok(())
}

/// With `p = exp(score - lse)` and `delta = dy . y`: `dv += p dy`, `dscore = p (dy . v - delta)`, then through the cap
/// and the product.
pub fn backward(s: &mut TorchSession, op: &AttentionBackward) -> Attempt {
    let plan = plan!(s, op, "attention_backward");
    if flash::serves(s, &plan) {
        return flash::backward(s, op, &plan);
    }
    let kind = s.at(&op.q)?.f_kind()?;
    if packed::serves(s, &plan, kind) {
        return packed::backward(s, op, &plan);
    }
    let acc = accumulator(kind);
    for (tokens, prefix) in &plan.sequences {
        let zeros = || Tensor::f_zeros([plan.kv_heads, tokens.end - tokens.start, plan.head_dim], (acc, s.device()));
        let (dk, dv) = (zeros()?, zeros()?);
        for block in plan.blocks(s, tokens, *prefix)? {
            let first = block.keys.start - tokens.start;
            let part = |t: &Tensor| t.f_narrow(1, first, block.keys.end - block.keys.start);
            backward_block(s, op, &plan, acc, &block, &mut part(&dk)?, &mut part(&dv)?)?;
        }
        let write =
            |view: &View, d: &Tensor| -> Attempt { Ok(plan.keys(s, view, tokens, 1)?.f_squeeze_dim(1)?.f_copy_(d)?) };
        write(&op.dk, &dk)?;
        write(&op.dv, &dv)?;
    }
    Ok(())
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
