//! Log-probabilities of several ids per token, their backward, and the most probable ids.

use super::{Chunk, logits, rows};
use crate::{
    TorchSession,
    fault::{Attempt, Done, require, require_shape},
    storage::size,
};
use plugin_api::backend::{
    View,
    ops::{HeadCandidates, HeadCandidatesBackward, HeadTopk},
};
use tch::{Kind, Tensor};

plugin_api::operations! {
    CandidateOps for TorchSession:
    head_candidates HeadCandidates => candidates,
    head_candidates_backward HeadCandidatesBackward => backward,
    head_topk HeadTopk => topk,
}

/// The candidates on the device, `[N, K]`, inside the vocabulary and distinct within a row.
fn distinct(s: &TorchSession, op: &str, view: &View, vocabulary: u64) -> Attempt<Tensor> {
    let index = s.index(op, "ids", view, vocabulary)?;
    let mut sorted = Vec::new();
    for (n, row) in s.ints(view)?.chunks((view.cols as usize).max(1)).enumerate() {
        sorted.clear();
        sorted.extend_from_slice(row);
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        require(twice.is_none(), op, || format!("row {n} of ids has {} twice", twice.map_or(0, |pair| pair[0])))?;
    }
    Ok(index.f_view([size(view.rows)?, size(view.cols)?])?)
}

/// The outputs for a chunk's candidates.
struct Outputs<'a> {
    logp: &'a View,
    tail: &'a Option<View>,
    lse: &'a Option<View>,
}

impl Outputs<'_> {
    /// Writes the numbers of the chunk's tokens for `ids`, `[tokens, K]`.
    fn write(&self, s: &TorchSession, chunk: Chunk, z: &Tensor, ids: &Tensor) -> Attempt {
        let lse = z.f_logsumexp([1i64].as_slice(), true)?;
        let logp = z.f_log_softmax(-1, None)?;
        rows(&s.at(self.logp)?, chunk)?.f_copy_(&logp.f_gather(1, ids, false)?)?;
        chunk.write(s, self.tail, || {
            let rest = logp.f_scatter_value(1, ids, f64::NEG_INFINITY)?;
            // A probability is at most 1, whatever the rounding of the sums.
            Ok(rest.f_logsumexp([1i64].as_slice(), true)?.f_clamp_max_(0.0)?)
        })?;
        chunk.write(s, self.lse, || Ok(lse))
    }
}

/// Log-probabilities of given ids.
pub fn candidates(s: &mut TorchSession, op: &HeadCandidates) -> Attempt {
    let head = logits!(s, op, "head_candidates");
    let ids = distinct(s, "head_candidates", &op.ids, op.w.rows)?;
    let out = Outputs { logp: &op.logp, tail: &op.tail, lse: &op.lse };
    for chunk in head.chunks() {
        out.write(s, chunk, &head.of(chunk)?, &rows(&ids, chunk)?)?;
    }
    Ok(())
}

/// Cotangents of hidden states, weight and bias.
pub fn backward(s: &mut TorchSession, op: &HeadCandidatesBackward) -> Attempt {
    let head = logits!(s, op, "head_candidates_backward");
    require(op.dtail.is_none() || op.tail.is_some(), "head_candidates_backward", || {
        "`dtail` needs the forward's `tail`".into()
    })?;
    let ids = distinct(s, "head_candidates_backward", &op.ids, op.w.rows)?;
    let (dlogp, dx) = (s.at_opt(&op.dlogp)?, s.at(&op.dx)?);
    // Without another id the tail is a constant.
    let dtail = op.dtail.filter(|_| op.ids.cols < op.w.rows);
    let (mut dw, mut dbias) = (s.at_opt(&op.dw)?, s.at_opt(&op.dbias)?);
    for chunk in head.chunks() {
        let (z, ids) = (head.of(chunk)?, rows(&ids, chunk)?);
        let logp = z.f_sub(&chunk.column(s, &op.lse)?)?;
        let p = logp.f_exp()?;
        let mut dz = p.f_zeros_like()?;
        if let Some(dlogp) = &dlogp {
            let dlogp = rows(dlogp, chunk)?;
            dz.f_sub_(&p.f_mul(&dlogp.f_sum_dim_intlist([1i64].as_slice(), true, None)?)?).done()?;
            dz.f_scatter_add_(1, &ids, &dlogp).done()?;
        }
        if let (Some(tail), Some(dtail)) = (chunk.column_opt(s, &op.tail)?, chunk.column_opt(s, &dtail)?) {
            let share = logp.f_sub(&tail)?.f_scatter_value_(1, &ids, f64::NEG_INFINITY)?.f_exp_()?;
            dz.f_add_(&share.f_sub(&p)?.f_mul_(&dtail)?).done()?;
        }
        head.gradients(chunk, &head.raw(&z, dz)?, &dx, &mut dw, &mut dbias)?;
    }
    Ok(())
}

/// The ids of the `count` largest logits of each row, the largest first; of equal ones the lowest id first.
///
/// libtorch's `topk` chooses any of equal logits, so it only finds the smallest logit to keep. Larger ones are all kept, and of
/// those that are equal to it the first.
fn largest(z: &Tensor, count: i64) -> Attempt<Tensor> {
    let tokens = z.size()[0];
    if count == 0 {
        return Ok(Tensor::f_zeros([tokens, 0], (Kind::Int64, z.device()))?);
    }
    // Otherwise no number would be at most NaN.
    let z = z.f_masked_fill(&z.f_isnan()?, f64::NEG_INFINITY)?;
    let (top, _) = z.f_topk(count, 1, true, true)?;
    let smallest = top.f_narrow(1, count - 1, 1)?;
    let (larger, equal) = (z.f_gt_tensor(&smallest)?, z.f_eq_tensor(&smallest)?);
    let room = larger.f_sum_dim_intlist([1i64].as_slice(), true, Kind::Int64)?.f_neg_()?.f_add_scalar_(count)?;
    let first = equal.f_cumsum(1, Kind::Int64)?.f_le_tensor(&room)?.f_logical_and_(&equal)?;
    // Row by row in ascending order: `count` of each row.
    let kept = larger.f_logical_or(&first)?.f_nonzero()?.f_select(1, 1)?.f_reshape([tokens, count])?;
    let (_, order) = z.f_gather(1, &kept, false)?.f_sort_stable(true, 1, true)?;
    Ok(kept.f_gather(1, &order, false)?)
}

/// The most probable ids.
pub fn topk(s: &mut TorchSession, op: &HeadTopk) -> Attempt {
    let (count, vocabulary) = (op.ids.cols, op.w.rows);
    require_shape(count <= vocabulary, "head_topk", || format!("{count} ids of a vocabulary of {vocabulary}"))?;
    let head = logits!(s, op, "head_topk");
    let (out, found) = (Outputs { logp: &op.logp, tail: &op.tail, lse: &None }, s.at(&op.ids)?);
    for chunk in head.chunks() {
        let z = head.of(chunk)?;
        let ids = largest(&z, size(count)?)?;
        rows(&found, chunk)?.f_copy_(&ids)?;
        out.write(s, chunk, &z, &ids)?;
    }
    Ok(())
}
