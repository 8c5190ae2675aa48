//! Attention by libtorch's flash kernels on the processor: causal or bidirectional, without window and cap.
//!
//! Sequences of one length go into one call; grouped heads are batches of their key-value heads, with keys shared within the group
//! by a stride of 0.

use super::plan::Plan;
use crate::{
    TorchSession,
    fault::Attempt,
    storage::{accumulator, row_stride, to},
};
use plugin_api::backend::{
    View,
    ops::{Attention, AttentionBackward, MaskKind},
};
use std::ops::Range;
use tch::Tensor;

/// Whether these kernels support the plan.
pub fn serves(s: &TorchSession, plan: &Plan) -> bool {
    s.on_cpu() && plan.window == 0 && plan.softcap <= 0.0 && plan.mask != MaskKind::PREFIX
}

/// Sequences that go into one call.
struct Batch {
    /// Tokens of the first.
    tokens: Range<i64>,
    /// The number of consecutive sequences, all of one length.
    sequences: i64,
}

/// Consecutive sequences of one length; single ones if heads are grouped, since batch and group need the same axes.
fn batches(plan: &Plan) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (tokens, _) in &plan.sequences {
        let length = tokens.end - tokens.start;
        match batches.last_mut() {
            Some(last) if plan.group == 1 && last.tokens.end - last.tokens.start == length => last.sequences += 1,
            _ => batches.push(Batch { tokens: tokens.clone(), sequences: 1 }),
        }
    }
    batches
}

impl Batch {
    /// A query-like operand: `[sequences, heads, tokens, head_dim]`, or `[kv_heads, group, tokens, head_dim]`.
    fn queries(&self, s: &TorchSession, plan: &Plan, view: &View) -> Attempt<Tensor> {
        if plan.group > 1 {
            return plan.queries(s, view, &self.tokens);
        }
        let (rows, length, d) = (row_stride(view)?, self.tokens.end - self.tokens.start, plan.head_dim);
        let size = [self.sequences, plan.kv_heads, length, d];
        s.shaped(view, &size, &[length * rows, d, rows, 1], self.tokens.start * rows)
    }

    /// A key-like operand under the same shape.
    fn keys(&self, s: &TorchSession, plan: &Plan, view: &View) -> Attempt<Tensor> {
        if plan.group > 1 { plan.keys(s, view, &self.tokens, plan.group) } else { self.queries(s, plan, view) }
    }

    /// The log-sum-exps: `[sequences, heads, tokens]`, or `[kv_heads, group, tokens]`.
    fn per_head(&self, s: &TorchSession, plan: &Plan, view: &View) -> Attempt<Tensor> {
        if plan.group > 1 {
            return plan.per_head(s, view, &self.tokens);
        }
        let (rows, length) = (row_stride(view)?, self.tokens.end - self.tokens.start);
        let size = [self.sequences, plan.kv_heads, length];
        s.shaped(view, &size, &[length * rows, 1, rows], self.tokens.start * rows)
    }

    /// Writes the cotangent of a key-like operand, summed over the group.
    fn write_keys(&self, s: &TorchSession, plan: &Plan, view: &View, d: &Tensor) -> Attempt {
        if plan.group == 1 {
            return Ok(self.queries(s, plan, view)?.f_copy_(d)?);
        }
        let sum = d.f_sum_dim_intlist([1i64].as_slice(), true, None)?;
        Ok(plan.keys(s, view, &self.tokens, 1)?.f_copy_(&sum)?)
    }
}

/// `y` and `lse` of every sequence.
pub fn forward(s: &TorchSession, op: &Attention, plan: &Plan) -> Attempt {
    let causal = plan.mask == MaskKind::CAUSAL;
    for batch in batches(plan) {
        let (y, lse) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu(
            &batch.queries(s, plan, &op.q)?,
            &batch.keys(s, plan, &op.k)?,
            &batch.keys(s, plan, &op.v)?,
            0.0,
            causal,
            None::<Tensor>,
            plan.scale,
        )?;
        batch.queries(s, plan, &op.y)?.f_copy_(&y)?;
        if let Some(view) = &op.lse {
            batch.per_head(s, plan, view)?.f_copy_(&lse)?;
        }
    }
    Ok(())
}

/// `dq`, `dk` and `dv` of every sequence.
pub fn backward(s: &TorchSession, op: &AttentionBackward, plan: &Plan) -> Attempt {
    let causal = plan.mask == MaskKind::CAUSAL;
    // In bf16 the kernel would add each block's part to cotangents of 8 bits; f32 rounds once, at the end.
    let acc = accumulator(s.at(&op.q)?.f_kind()?);
    for batch in batches(plan) {
        let queries = |view: &View| to(&batch.queries(s, plan, view)?, acc);
        let keys = |view: &View| to(&batch.keys(s, plan, view)?, acc);
        let (dq, dk, dv) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward(
            &queries(&op.dy)?,
            &queries(&op.q)?,
            &keys(&op.k)?,
            &keys(&op.v)?,
            &queries(&op.y)?,
            &batch.per_head(s, plan, &op.lse)?,
            0.0,
            causal,
            None::<Tensor>,
            plan.scale,
        )?;
        batch.queries(s, plan, &op.dq)?.f_copy_(&dq)?;
        batch.write_keys(s, plan, &op.dk, &dk)?;
        batch.write_keys(s, plan, &op.dv, &dv)?;
    }
    Ok(())
}
