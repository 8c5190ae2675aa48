//! Log-probabilities of several ids per token, their backward, and the most probable ids.

use super::{Gradients, Logits, column, log_sum_exp, logits, write_row};
use crate::{
    check,
    generic::context::{Generic, Outcome},
    kernels::head::candidates::largest,
};
use candle_core::{Result, Tensor};
use plugin_api::{
    Error,
    backend::{
        View,
        ops::{HeadCandidates, HeadCandidatesBackward, HeadTopk},
    },
};

plugin_api::operations! {
    CandidateOps for Generic<'_>:
    head_candidates HeadCandidates => candidates,
    head_candidates_backward HeadCandidatesBackward => backward,
    head_topk HeadTopk => topk,
}

/// The ids of a chunk as a tensor, `[tokens, K]`.
fn index(s: &Generic<'_>, ids: &[Vec<i32>]) -> Outcome<Tensor> {
    Ok(s.index(&ids.concat())?.reshape((ids.len(), ids.first().map_or(0, Vec::len)))?)
}

/// `value` at the ids of each row, and `z` elsewhere.
fn replaced(z: &Tensor, ids: &Tensor, value: f32) -> Result<Tensor> {
    let zero = z.zeros_like()?;
    let marked = zero.scatter_add(ids, &Tensor::ones(ids.dims(), z.dtype(), z.device())?, 1)?;
    marked.gt(&zero)?.where_cond(&Tensor::full(value, z.dims(), z.device())?, z)
}

/// Numbers of a chunk of tokens.
struct Numbers {
    logp: Tensor,
    tail: Option<Tensor>,
    lse: Tensor,
}

/// The numbers of a chunk, whose ids may be none.
fn numbers(z: &Tensor, ids: &Tensor, with_tail: bool) -> Result<Numbers> {
    let lse = log_sum_exp(z)?;
    let (tokens, count) = ids.dims2()?;
    if count == 0 {
        // candle has no empty gathers; the tail is that of everything.
        let logp = Tensor::zeros((tokens, 0), z.dtype(), z.device())?;
        return Ok(Numbers { logp, tail: with_tail.then(|| lse.zeros_like()).transpose()?, lse });
    }
    let logp = z.gather(ids, 1)?.broadcast_sub(&lse)?;
    let tail = if !with_tail {
        None
    } else if count == z.dim(1)? {
        Some(Tensor::full(f32::NEG_INFINITY, (tokens, 1), z.device())?)
    } else {
        let tail = (log_sum_exp(&replaced(z, ids, f32::NEG_INFINITY)?)? - &lse)?;
        // A probability is at most 1, whatever the rounding of the two sums.
        Some(tail.minimum(&tail.zeros_like()?)?)
    };
    Ok(Numbers { logp, tail, lse })
}

/// Rows collected over chunks.
#[derive(Default)]
struct Rows {
    logp: Vec<Tensor>,
    tail: Vec<Tensor>,
    lse: Vec<Tensor>,
}

impl Rows {
    fn push(&mut self, numbers: Numbers) {
        self.logp.push(numbers.logp);
        self.tail.extend(numbers.tail);
        self.lse.push(numbers.lse);
    }
}

fn read_ids(s: &Generic<'_>, op: &str, view: &View, vocabulary: usize) -> Outcome<Vec<Vec<i32>>> {
    let ids = s.int_rows(view)?;
    check::distinct(op, "ids", ids.iter().map(Vec::as_slice), vocabulary)?;
    Ok(ids)
}

/// Log-probabilities of given ids.
pub fn candidates(s: &mut Generic<'_>, op: &HeadCandidates) -> Outcome {
    let head: Logits = logits!(s, op, "head_candidates");
    let ids = read_ids(s, "head_candidates", &op.ids, head.vocabulary)?;
    if ids.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::default();
    for (first, tokens) in head.chunks() {
        let z = head.of(first, tokens)?;
        rows.push(numbers(&z, &index(s, &ids[first..first + tokens])?, op.tail.is_some())?);
    }
    write_row(s, &Some(op.logp), &rows.logp)?;
    write_row(s, &op.tail, &rows.tail)?;
    write_row(s, &op.lse, &rows.lse)
}

/// Cotangents of hidden states, weight and bias.
pub fn backward(s: &mut Generic<'_>, op: &HeadCandidatesBackward) -> Outcome {
    let head: Logits = logits!(s, op, "head_candidates_backward");
    if op.dtail.is_some() && op.tail.is_none() {
        return Err(Error::invalid("head_candidates_backward: `dtail` needs the forward's `tail`").into());
    }
    let ids = read_ids(s, "head_candidates_backward", &op.ids, head.vocabulary)?;
    if ids.is_empty() {
        return Ok(());
    }
    let (count, all) = (op.ids.cols as usize, head.vocabulary);
    let (lse, tail) = (s.input_opt(&Some(op.lse))?, s.input_opt(&op.tail)?);
    // Without another id the tail is a constant.
    let (dlogp, dtail) = (s.input_opt(&op.dlogp)?, s.input_opt(&op.dtail.filter(|_| count < all))?);
    let mut gradients = Gradients::of(&head)?;
    for (first, tokens) in head.chunks() {
        let z = head.of(first, tokens)?;
        let ids = index(s, &ids[first..first + tokens])?;
        let missing = || Error::internal("head_candidates_backward: `lse` is missing");
        let logp = z.broadcast_sub(&column(&lse, first, tokens)?.ok_or_else(missing)?)?;
        let p = logp.exp()?;
        let mut dz = p.zeros_like()?;
        if let (Some(dlogp), true) = (&dlogp, count > 0) {
            let dlogp = dlogp.narrow(0, first, tokens)?.contiguous()?;
            dz = dz.scatter_add(&ids, &dlogp, 1)?;
            dz = (dz - p.broadcast_mul(&dlogp.sum_keepdim(1)?)?)?;
        }
        if let (Some(tail), Some(dtail)) = (column(&tail, first, tokens)?, column(&dtail, first, tokens)?) {
            let share = logp.broadcast_sub(&tail)?.exp()?;
            let share = if count > 0 { replaced(&share, &ids, 0.0)? } else { share };
            dz = (dz + (share - &p)?.broadcast_mul(&dtail)?)?;
        }
        gradients.add(&head, first, &head.raw(&z, dz)?)?;
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}

/// The most probable ids. Logits are copied to the host: no tensor operation of candle ranks equal ones by their index.
pub fn topk(s: &mut Generic<'_>, op: &HeadTopk) -> Outcome {
    check::top("head_topk", op.ids.cols, op.w.rows)?;
    let head: Logits = logits!(s, op, "head_topk");
    if head.tokens == 0 {
        return Ok(());
    }
    let (mut rows, mut found) = (Rows::default(), Vec::new());
    for (first, tokens) in head.chunks() {
        let z = head.of(first, tokens)?;
        let top = |z: &Vec<f32>| {
            let kept = largest(z, op.ids.cols as usize, Vec::new());
            kept.into_iter().map(|ranked| ranked.id as i32).collect()
        };
        let ids: Vec<Vec<i32>> = z.to_vec2::<f32>()?.iter().map(top).collect();
        rows.push(numbers(&z, &index(s, &ids)?, op.tail.is_some())?);
        found.extend(ids);
    }
    s.output_int_rows(&op.ids, &found)?;
    write_row(s, &Some(op.logp), &rows.logp)?;
    write_row(s, &op.tail, &rows.tail)
}
