//! Softmax attention: sequences of equal length in one batch, with the scores of one batch at a time.

use super::context::{Generic, Outcome};
use crate::check::{self, AttentionShape};
use candle_core::{D, Device, Tensor};
use plugin_api::backend::{
    View,
    ops::{Attention, AttentionBackward},
};

plugin_api::operations! {
    AttentionOps for Generic<'_>:
    rotary Rotary => super::rows::rotary,
    attention Attention => forward,
    attention_backward AttentionBackward => backward,
    decode_attention DecodeAttention => super::decode::attention,
}

/// The maximum number of scores at a time, unless one sequence needs more.
const SCORES: usize = 1 << 22;

/// Neighbouring sequences of one length and prefix.
struct Batch {
    start: usize,
    len: usize,
    count: usize,
    prefix: usize,
}

fn batches(offsets: &[i32], prefix: Option<&[i32]>, heads: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (s, ends) in offsets.windows(2).enumerate() {
        let (start, len) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
        let prefix = prefix.map_or(0, |prefix| prefix[s] as usize);
        let fits = |b: &&mut Batch| b.len == len && b.prefix == prefix && (b.count + 1) * heads * len * len <= SCORES;
        match batches.last_mut().filter(fits) {
            Some(batch) => batch.count += 1,
            None => batches.push(Batch { start, len, count: 1, prefix }),
        }
    }
    batches.retain(|b| b.len > 0);
    batches
}

impl Batch {
    /// `[tokens, kv_heads * group * d]` as `[count * kv_heads, group * len, d]`.
    fn split(&self, x: &Tensor, shape: &AttentionShape, group: usize) -> candle_core::Result<Tensor> {
        let (kv, d) = (shape.kv_heads, x.dim(1)? / (shape.kv_heads * group));
        x.narrow(0, self.start, self.count * self.len)?
            .reshape((self.count, self.len, kv, group, d))?
            .permute((0, 2, 3, 1, 4))?
            .contiguous()?
            .reshape((self.count * kv, group * self.len, d))
    }

    /// The opposite of [`Batch::split`].
    fn join(&self, x: &Tensor, shape: &AttentionShape, group: usize) -> candle_core::Result<Tensor> {
        let (kv, d) = (shape.kv_heads, x.dim(2)?);
        x.reshape((self.count, kv, group, self.len, d))?
            .permute((0, 3, 1, 2, 4))?
            .contiguous()?
            .reshape((self.count * self.len, kv * group * d))
    }

    /// 0 where a query sees a key, minus infinity elsewhere: `[1, group * len, len]`.
    fn mask(&self, shape: &AttentionShape, device: &Device) -> candle_core::Result<Tensor> {
        let len = self.len;
        let mut mask = vec![f32::NEG_INFINITY; len * len];
        for (i, row) in mask.chunks_exact_mut(len).enumerate() {
            let (from, to) = shape.visible(i, len, self.prefix);
            row[from..to].fill(0.0);
        }
        let mask = Tensor::from_vec(mask, (1, 1, len, len), device)?;
        mask.repeat((1, shape.group(), 1, 1))?.reshape((1, shape.group() * len, len))
    }

    /// Capped, masked scores, and the cap's slope if there is a cap.
    fn scores(&self, q: &Tensor, k: &Tensor, shape: &AttentionShape) -> candle_core::Result<(Tensor, Option<Tensor>)> {
        let mut scores = (q.matmul(&k.t()?)? * f64::from(shape.scale))?;
        let mut slope = None;
        if shape.softcap > 0.0 {
            let t = (scores / f64::from(shape.softcap))?.tanh()?;
            slope = Some(t.sqr()?.affine(-1.0, 1.0)?);
            scores = (t * f64::from(shape.softcap))?;
        }
        Ok((scores.broadcast_add(&self.mask(shape, q.device())?)?, slope))
    }
}

/// The checked shape and batches of an operation.
macro_rules! plan {
    ($s:expr, $op:expr, $name:literal) => {{
        let (s, op) = (&*$s, $op);
        let shape =
            AttentionShape::new($name, op.heads, op.kv_heads, op.head_dim, op.scale, op.mask, op.window, op.softcap)?;
        let offsets = s.ints(&op.offsets)?;
        let prefix = op.prefix.as_ref().map(|prefix| s.ints(prefix)).transpose()?;
        check::offsets($name, &offsets, op.q.rows as usize)?;
        check::prefix($name, op.mask, prefix.as_deref())?;
        (shape, batches(&offsets, prefix.as_deref(), shape.heads))
    }};
}

/// Concatenates the batches' rows and writes them.
fn write(s: &mut Generic<'_>, view: &View, parts: &[Tensor]) -> Outcome {
    if parts.is_empty() {
        return Ok(());
    }
    let whole = Tensor::cat(parts, 0)?;
    s.output(view, &whole)
}

/// `y = softmax(cap(scale q k^T)) v` over each query's visible keys.
pub fn forward(s: &mut Generic<'_>, op: &Attention) -> Outcome {
    let (shape, batches) = plan!(s, op, "attention");
    let (q, k, v) = (s.input(&op.q)?, s.input(&op.k)?, s.input(&op.v)?);
    let group = shape.group();
    let (mut ys, mut lses) = (Vec::new(), Vec::new());
    for batch in &batches {
        let (q, k, v) = (batch.split(&q, &shape, group)?, batch.split(&k, &shape, 1)?, batch.split(&v, &shape, 1)?);
        let (scores, _) = batch.scores(&q, &k, &shape)?;
        let largest = scores.max_keepdim(D::Minus1)?;
        let e = scores.broadcast_sub(&largest)?.exp()?;
        let total = e.sum_keepdim(D::Minus1)?;
        let y = e.matmul(&v)?.broadcast_div(&total)?;
        ys.push(batch.join(&y, &shape, group)?);
        lses.push(batch.join(&(largest + total.log()?)?, &shape, group)?);
    }
    write(s, &op.y, &ys)?;
    match &op.lse {
        Some(lse) => write(s, lse, &lses),
        None => Ok(()),
    }
}

/// With `p = exp(score - lse)` and `delta = dy . y`: `dv = p^T dy`, `ds = p (dy v^T - delta)` through cap and scale, `dq = ds k`,
/// `dk = ds^T q`. A group's queries are rows of one matrix, so products sum over them.
pub fn backward(s: &mut Generic<'_>, op: &AttentionBackward) -> Outcome {
    let (shape, batches) = plan!(s, op, "attention_backward");
    let (q, k, v) = (s.input(&op.q)?, s.input(&op.k)?, s.input(&op.v)?);
    let (y, lse, dy) = (s.input(&op.y)?, s.input(&op.lse)?, s.input(&op.dy)?);
    let group = shape.group();
    let (mut dqs, mut dks, mut dvs) = (Vec::new(), Vec::new(), Vec::new());
    for batch in &batches {
        let queries = |x: &Tensor| batch.split(x, &shape, group);
        let (k, v) = (batch.split(&k, &shape, 1)?, batch.split(&v, &shape, 1)?);
        let (q, y, dy, lse) = (queries(&q)?, queries(&y)?, queries(&dy)?, queries(&lse)?);
        let (scores, slope) = batch.scores(&q, &k, &shape)?;
        let p = scores.broadcast_sub(&lse)?.exp()?;
        let delta = (&dy * y)?.sum_keepdim(D::Minus1)?;
        let mut ds = (&p * dy.matmul(&v.t()?)?.broadcast_sub(&delta)?)?;
        if let Some(slope) = slope {
            ds = (ds * slope)?;
        }
        let ds = (ds * f64::from(shape.scale))?;
        dqs.push(batch.join(&ds.matmul(&k)?, &shape, group)?);
        dks.push(batch.join(&ds.t()?.contiguous()?.matmul(&q)?, &shape, 1)?);
        dvs.push(batch.join(&p.t()?.contiguous()?.matmul(&dy)?, &shape, 1)?);
    }
    write(s, &op.dq, &dqs)?;
    write(s, &op.dk, &dks)?;
    write(s, &op.dv, &dvs)
}
