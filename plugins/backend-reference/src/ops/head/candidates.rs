//! Log-probabilities of several ids per token, their backward, and the most probable ids.

use super::{Gradients, at, log_sum_exp, logits, row};
use crate::{
    Reference,
    matrix::Matrix,
    session::{require, require_shape},
};
use plugin_api::{
    Code, Error, Result,
    backend::{
        View,
        ops::{HeadCandidates, HeadCandidatesBackward, HeadTopk},
    },
};

plugin_api::operations! {
    CandidateOps for Reference:
    head_candidates HeadCandidates => candidates,
    head_candidates_backward HeadCandidatesBackward => backward,
    head_topk HeadTopk => topk,
}

/// The candidates of every token, inside the vocabulary and distinct within a token.
fn distinct(s: &Reference, op: &str, view: &View, vocabulary: usize) -> Result<Vec<Vec<usize>>> {
    let matrix = s.read(view)?;
    let mut tokens = Vec::with_capacity(matrix.rows);
    for n in 0..matrix.rows {
        let ids = matrix.row(n);
        if let Some(k) = ids.iter().position(|&id| id < 0.0 || id >= vocabulary as f64) {
            let text = format!("{op}: `ids`[{n}, {k}] is {}, outside a table of {vocabulary}", ids[k]);
            return Err(Error::new(Code::INDEX, text));
        }
        let ids: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        require(twice.is_none(), op, || format!("row {n} of `ids` has {} twice", twice.map_or(0, |pair| pair[0])))?;
        tokens.push(ids);
    }
    Ok(tokens)
}

/// Which ids are not candidates.
fn rest(ids: &[usize], vocabulary: usize) -> Vec<bool> {
    let mut rest = vec![true; vocabulary];
    ids.iter().for_each(|&id| rest[id] = false);
    rest
}

/// The log-probability of all ids that are not candidates.
fn tail(z: &[f64], lse: f64, ids: &[usize]) -> f64 {
    let rest = rest(ids, z.len());
    log_sum_exp(z.iter().zip(&rest).filter(|(_, rest)| **rest).map(|(&z, _)| z)) - lse
}

/// Log-probabilities of given ids.
pub fn candidates(s: &mut Reference, op: &HeadCandidates) -> Result<()> {
    let head = logits!(s, op, "head_candidates");
    let tokens = distinct(s, "head_candidates", &op.ids, head.w.rows)?;
    let (mut logp, mut lses, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    for (n, ids) in tokens.iter().enumerate() {
        let z = head.of(n);
        let lse = log_sum_exp(z.iter().copied());
        logp.extend(ids.iter().map(|&id| z[id] - lse));
        lses.push(lse);
        tails.push(tail(&z, lse, ids));
    }
    s.write(&op.logp, &Matrix { rows: tokens.len(), cols: op.ids.cols as usize, data: logp })?;
    s.write_opt(&op.tail, &row(tails))?;
    s.write_opt(&op.lse, &row(lses))
}

/// Cotangents of hidden states, weight and bias.
pub fn backward(s: &mut Reference, op: &HeadCandidatesBackward) -> Result<()> {
    let head = logits!(s, op, "head_candidates_backward");
    require(op.dtail.is_none() || op.tail.is_some(), "head_candidates_backward", || {
        "`dtail` needs the forward's `tail`".into()
    })?;
    let tokens = distinct(s, "head_candidates_backward", &op.ids, head.w.rows)?;
    let (lse, tail) = (s.read(&op.lse)?, s.read_opt(&op.tail)?);
    let (dlogp, dtail) = (s.read_opt(&op.dlogp)?, s.read_opt(&op.dtail)?);
    let mut gradients = Gradients::of(&head);
    for (n, ids) in tokens.iter().enumerate() {
        let z = head.of(n);
        let rest = rest(ids, z.len());
        // Without another id the tail is a constant.
        let dtail = if ids.len() == z.len() { 0.0 } else { at(&dtail, n) };
        let dlogp = |k: usize| dlogp.as_ref().map_or(0.0, |dlogp| dlogp.row(n)[k]);
        let total: f64 = (0..ids.len()).map(dlogp).sum::<f64>() + dtail;
        let mut d: Vec<f64> = z.iter().map(|z| -total * (z - lse.data[n]).exp()).collect();
        ids.iter().enumerate().for_each(|(k, &id)| d[id] += dlogp(k));
        if dtail != 0.0 {
            let share = |v: usize| (z[v] - lse.data[n] - at(&tail, n)).exp();
            (0..z.len()).filter(|&v| rest[v]).for_each(|v| d[v] += dtail * share(v));
        }
        let d: Vec<f64> = z.iter().zip(d).map(|(&z, dz)| head.raw(z, dz)).collect();
        gradients.add(&head, n, &d);
    }
    gradients.write(s, &op.dx, &op.dw, &op.dbias)
}

/// The most probable ids.
pub fn topk(s: &mut Reference, op: &HeadTopk) -> Result<()> {
    let (count, vocabulary) = (op.ids.cols, op.w.rows);
    require_shape(count <= vocabulary, "head_topk", || format!("{count} ids of a vocabulary of {vocabulary}"))?;
    let head = logits!(s, op, "head_topk");
    let shape = (head.x.rows, count as usize);
    let (mut found, mut logp, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..head.x.rows {
        let z = head.of(n);
        let lse = log_sum_exp(z.iter().copied());
        let mut ranked: Vec<usize> = (0..z.len()).collect();
        // The sort is stable, so equal logits keep the lower index first; adding 0 makes the two zeros equal.
        ranked.sort_by(|&i, &j| (z[j] + 0.0).total_cmp(&(z[i] + 0.0)));
        ranked.truncate(shape.1);
        found.extend(ranked.iter().map(|&id| id as f64));
        logp.extend(ranked.iter().map(|&id| z[id] - lse));
        tails.push(tail(&z, lse, &ranked));
    }
    s.write(&op.ids, &Matrix { rows: shape.0, cols: shape.1, data: found })?;
    s.write(&op.logp, &Matrix { rows: shape.0, cols: shape.1, data: logp })?;
    s.write_opt(&op.tail, &row(tails))
}
