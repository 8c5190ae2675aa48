//! Softmax attention within packed sequences, its backward from the saved log-sum-exp, and attention of new tokens over their
//! cache slots, which are extended in place.

use crate::{
    Reference,
    matrix::{Matrix, axpy, dot},
    session::require,
};
use plugin_api::{
    Code, Error, Result,
    backend::ops::{Attention, AttentionBackward, DecodeAttention, MaskKind},
};
use std::ops::Range;

plugin_api::operations! {
    AttentionOps for Reference:
    rotary Rotary => super::rotary::rotate,
    attention Attention => forward,
    attention_backward AttentionBackward => backward,
    decode_attention DecodeAttention => decode,
}

/// Shared by forward and backward: heads, scores and visibility.
struct Pattern {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scale: f64,
    softcap: f64,
    mask: MaskKind,
    window: usize,
    /// Per sequence: its tokens and its prefix length.
    sequences: Vec<(Range<usize>, i64)>,
}

macro_rules! pattern {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        check_heads($name, op.heads, op.kv_heads, op.head_dim, op.window)?;
        if !MaskKind::ALL.iter().any(|(mask, _)| *mask == op.mask) {
            return Err(op.mask.unknown($name));
        }
        let is_prefix = op.mask == MaskKind::PREFIX;
        require(!is_prefix || op.prefix.is_some(), $name, || "mask PREFIX needs `prefix`".into())?;
        let ranges = s.ranges($name, "offsets", &op.offsets, op.q.rows as usize)?;
        let prefix = match op.prefix.filter(|_| is_prefix) {
            Some(prefix) => s.ints(&prefix)?,
            None => vec![0; ranges.len()],
        };
        Pattern {
            heads: op.heads as usize,
            kv_heads: op.kv_heads as usize,
            head_dim: op.head_dim as usize,
            scale: op.scale,
            softcap: op.softcap,
            mask: op.mask,
            window: op.window as usize,
            sequences: ranges.into_iter().zip(prefix).collect(),
        }
    }};
}

/// Refuses head counts that do not divide and negative windows.
pub fn check_heads(op: &str, heads: i64, kv_heads: i64, head_dim: i64, window: i64) -> Result<()> {
    require(heads > 0 && kv_heads > 0 && head_dim > 0 && heads % kv_heads == 0, op, || {
        format!("{heads} heads of width {head_dim} cannot share {kv_heads} key-value heads")
    })?;
    require(window >= 0, op, || format!("window {window} is negative"))
}

/// `c tanh(s / c)` where c > 0, else s.
pub fn cap(score: f64, softcap: f64) -> f64 {
    if softcap > 0.0 { softcap * (score / softcap).tanh() } else { score }
}

/// Derivative of [`cap`], from its value.
pub fn cap_slope(capped: f64, softcap: f64) -> f64 {
    if softcap > 0.0 { 1.0 - (capped / softcap).powi(2) } else { 1.0 }
}

/// Turns scores into their softmax and returns their log-sum-exp (minus infinity if there are no scores).
pub fn softmax(scores: &mut [f64]) -> f64 {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        scores.fill(0.0);
        return largest;
    }
    let lse = largest + scores.iter().map(|s| (s - largest).exp()).sum::<f64>().ln();
    scores.iter_mut().for_each(|s| *s = (*s - lse).exp());
    lse
}

impl Pattern {
    /// The columns of query head `h`.
    fn query_columns(&self, h: usize) -> Range<usize> {
        h * self.head_dim..(h + 1) * self.head_dim
    }

    /// The columns of the key-value head that query head `h` reads.
    fn key_columns(&self, h: usize) -> Range<usize> {
        let head = h / (self.heads / self.kv_heads);
        head * self.head_dim..(head + 1) * self.head_dim
    }

    /// Whether the query at `i` sees the key at `j`, both counted from the sequence's start.
    fn sees(&self, i: usize, j: usize, prefix: i64) -> bool {
        let recent = self.window == 0 || j + self.window > i;
        let visible = match self.mask {
            MaskKind::BIDIRECTIONAL => true,
            MaskKind::PREFIX => j <= i || (j as i64) < prefix,
            _ => j <= i,
        };
        visible && recent
    }

    /// Calls `f(token, head, visible key tokens)` for every query.
    fn for_each_query(&self, mut f: impl FnMut(usize, usize, &[usize])) {
        for (tokens, prefix) in &self.sequences {
            for n in tokens.clone() {
                let sees = |j: &usize| self.sees(n - tokens.start, j - tokens.start, *prefix);
                let keys: Vec<usize> = tokens.clone().filter(sees).collect();
                (0..self.heads).for_each(|h| f(n, h, &keys));
            }
        }
    }

    /// Capped scores of one query against the keys.
    fn scores(&self, q: &[f64], k: &Matrix, h: usize, keys: &[usize]) -> Vec<f64> {
        let columns = self.key_columns(h);
        keys.iter().map(|&j| cap(self.scale * dot(q, &k.row(j)[columns.clone()]), self.softcap)).collect()
    }
}

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
pub fn forward(s: &mut Reference, op: &Attention) -> Result<()> {
    let pattern = pattern!(s, op, "attention");
    let (q, k, v) = (s.read(&op.q)?, s.read(&op.k)?, s.read(&op.v)?);
    let mut y = Matrix::zeros(q.rows, q.cols);
    let mut lse = Matrix::zeros(q.rows, pattern.heads);
    pattern.for_each_query(|n, h, keys| {
        let mut p = pattern.scores(&q.row(n)[pattern.query_columns(h)], &k, h, keys);
        lse.row_mut(n)[h] = softmax(&mut p);
        for (&j, &p) in keys.iter().zip(&p) {
            axpy(&mut y.row_mut(n)[pattern.query_columns(h)], p, &v.row(j)[pattern.key_columns(h)]);
        }
    });
    s.write(&op.y, &y)?;
    s.write_opt(&op.lse, &lse)
}

/// With `p = exp(score - lse)` and `delta = dy . y`: `dv += p dy`, `dscore = p (dy . v - delta)`, then through the cap
/// and the product.
pub fn backward(s: &mut Reference, op: &AttentionBackward) -> Result<()> {
    let pattern = pattern!(s, op, "attention_backward");
    let (q, k, v) = (s.read(&op.q)?, s.read(&op.k)?, s.read(&op.v)?);
    let (y, lse, dy) = (s.read(&op.y)?, s.read(&op.lse)?, s.read(&op.dy)?);
    let mut dq = Matrix::zeros(q.rows, q.cols);
    let mut dk = Matrix::zeros(k.rows, k.cols);
    let mut dv = Matrix::zeros(v.rows, v.cols);
    pattern.for_each_query(|n, h, keys| {
        let (columns, kv_columns) = (pattern.query_columns(h), pattern.key_columns(h));
        let (q, dy) = (&q.row(n)[columns.clone()], &dy.row(n)[columns.clone()]);
        let delta = dot(dy, &y.row(n)[columns.clone()]);
        let scores = pattern.scores(q, &k, h, keys);
        for (&j, score) in keys.iter().zip(scores) {
            let p = (score - lse.row(n)[h]).exp();
            let dscore = p * (dot(dy, &v.row(j)[kv_columns.clone()]) - delta);
            let dproduct = dscore * cap_slope(score, pattern.softcap) * pattern.scale;
            axpy(&mut dv.row_mut(j)[kv_columns.clone()], p, dy);
            axpy(&mut dq.row_mut(n)[columns.clone()], dproduct, &k.row(j)[kv_columns.clone()]);
            axpy(&mut dk.row_mut(j)[kv_columns.clone()], dproduct, q);
        }
    });
    s.write(&op.dq, &dq)?;
    s.write(&op.dk, &dk)?;
    s.write(&op.dv, &dv)
}

/// Stores each row's key and value in its slot, then attends over the slot.
fn decode(s: &mut Reference, op: &DecodeAttention) -> Result<()> {
    check_heads("decode_attention", op.heads, op.kv_heads, op.head_dim, op.window)?;
    let (q, k, v) = (s.read(&op.q)?, s.read(&op.k)?, s.read(&op.v)?);
    let (mut k_cache, mut v_cache) = (s.read(&op.k_cache)?, s.read(&op.v_cache)?);
    let places = places(s, op, k_cache.rows)?;
    let (head_dim, group) = (op.head_dim as usize, (op.heads / op.kv_heads) as usize);
    let mut y = Matrix::zeros(q.rows, q.cols);
    for (b, &(first, length)) in places.iter().enumerate() {
        k_cache.row_mut(first + length).copy_from_slice(k.row(b));
        v_cache.row_mut(first + length).copy_from_slice(v.row(b));
        let window = if op.window > 0 { op.window as usize } else { length + 1 };
        let keys = first + (length + 1).saturating_sub(window)..first + length + 1;
        for h in 0..op.heads as usize {
            let columns = h * head_dim..(h + 1) * head_dim;
            let kv_columns = h / group * head_dim..(h / group + 1) * head_dim;
            let query = &q.row(b)[columns.clone()];
            let score = |j: usize| cap(op.scale * dot(query, &k_cache.row(j)[kv_columns.clone()]), op.softcap);
            let mut p: Vec<f64> = keys.clone().map(score).collect();
            softmax(&mut p);
            for (j, &p) in keys.clone().zip(&p) {
                axpy(&mut y.row_mut(b)[columns.clone()], p, &v_cache.row(j)[kv_columns.clone()]);
            }
        }
    }
    s.write(&op.y, &y)?;
    s.write(&op.k_cache, &k_cache)?;
    s.write(&op.v_cache, &v_cache)
}

/// Per row: the first cache row of its slot, and how many rows are filled.
fn places(s: &Reference, op: &DecodeAttention, cache_rows: usize) -> Result<Vec<(usize, usize)>> {
    let name = "decode_attention";
    require(op.capacity > 0 || op.q.rows == 0, name, || format!("capacity {} is not positive", op.capacity))?;
    let capacity = op.capacity.max(1) as usize;
    let slots = s.indices(name, "slots", &op.slots, cache_rows / capacity)?;
    let lengths = s.indices(name, "lengths", &op.lengths, capacity)?;
    for (b, slot) in slots.iter().enumerate() {
        if slots[..b].contains(slot) {
            return Err(Error::new(Code::INVALID_ARGUMENT, format!("{name}: slot {slot} is given twice")));
        }
    }
    Ok(slots.iter().map(|slot| slot * capacity).zip(lengths).collect())
}
