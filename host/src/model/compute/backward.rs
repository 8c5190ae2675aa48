//! The backward pass of the decoder: from the cotangent of the last hidden states to gradients in a flat buffer.
//!
//! One buffer carries the cotangent of the residual stream down through all layers; activations are freed after use.

use plugin_api::backend::ops::{
    ActivationBackward, AttentionBackward, Axpy, EmbeddingBackward, GluBackward, NormBackward,
};

use super::activations::{Activations, DeviceBatch, Forward, Kept};
use super::decoder::{Attend, Pass, missing};
use crate::device::{Buffer, Tensor};
use crate::error::{Error, Result};
use crate::families::family::Mlp;
use crate::model::loaded::{Layer, Model};
use crate::model::params::{LinearRef, NormRef};

impl Model {
    /// Adds the gradients of all trainable parameters to `grads`, given the cotangent of the last hidden states, `[N, D]`,
    /// which is overwritten.
    ///
    /// # Errors
    /// The forward pass kept nothing; errors of the backend. The gradients are then undefined.
    pub fn backward(&self, forward: Forward, dhidden: Tensor, grads: &Buffer) -> Result<()> {
        let Forward { batch, tape, hidden } = forward;
        drop(hidden);
        let mut tape = tape.ok_or_else(|| Error::run("backward: the forward pass kept no activations"))?;
        let Some(lowest) = self.lowest_trainable() else { return Ok(()) };
        let d = dhidden;
        let last = NormBackward {
            x: tape.stream.view(),
            stats: tape.stats.view(),
            dy: d.view(),
            dx: d.view(),
            ..NormBackward::default()
        };
        self.norm_backward(self.layout.norm, last, grads)?;
        let pass =
            Pass { batch: &batch, attend: &Attend::Packed, kept: Kept::EVERYTHING, backward: true, recompute: true };
        for index in (lowest..self.layers.len()).rev() {
            let mut acts = tape.layers.pop().ok_or_else(|| missing("a layer"))?;
            self.fill_in(&pass, index, &mut acts)?;
            self.layer_backward(index, &batch, acts, &d, grads)?;
        }
        self.embedding_backward(&batch, &d, grads)
    }

    /// Returns the lowest layer that the cotangent must reach, or the number of layers if only the last norm is trainable;
    /// `None` if nothing is.
    fn lowest_trainable(&self) -> Option<usize> {
        let layout = &self.layout;
        let learns = |index: usize| self.trainable[index];
        let norm_learns = |norm: NormRef| learns(norm.weight) || norm.bias.is_some_and(learns);
        let linear_learns = |linear: &LinearRef| learns(linear.weight) || linear.bias.is_some_and(learns);
        if learns(layout.embedding) || layout.positions.is_some_and(learns) {
            return Some(0);
        }
        if self.adapter.is_some() {
            let adapted = |layer: &Layer| layer.projections().iter().any(|projection| projection.branches.is_some());
            return self.layers.iter().position(adapted);
        }
        let layer = layout.layers.iter().position(|layer| {
            let linears = layer.qkv.iter().chain(&layer.up).chain([&layer.output, &layer.down]);
            layer.norms.all().any(norm_learns) || linears.into_iter().any(linear_learns)
        });
        layer.or_else(|| norm_learns(layout.norm).then_some(layout.layers.len()))
    }

    fn layer_backward(
        &self,
        index: usize,
        batch: &DeviceBatch,
        mut acts: Activations,
        d: &Tensor,
        grads: &Buffer,
    ) -> Result<()> {
        let (layer, tokens) = (&self.layers[index], batch.tokens);
        let dbranch = self.norm_after_backward(layer, 1, &mut acts, d, grads)?;
        let dup = self.mlp_backward(layer, &mut acts, dbranch.as_ref().unwrap_or(d), grads)?;
        drop(dbranch);
        if self.learns(&layer.up) {
            let input = acts.normed2.take().or_else(|| acts.middle.clone()).ok_or_else(|| missing("a norm"))?;
            self.project_backward_weight(&layer.up, input.view(), dup.view(), grads)?;
        }
        let dinput = self.device.tensor(tokens, self.config.dim)?;
        self.project_backward_input(&layer.up, dup.view(), dinput.view())?;
        drop(dup);
        // Parallel branches both have the cotangent of the layer's output, so attention reads it before the other branch adds to it.
        let early = match self.config.parallel {
            true => Some(self.attention_backward(index, batch, &mut acts, d, grads)?),
            false => None,
        };
        let middle = if self.config.parallel { acts.stream.clone() } else { acts.middle.take() };
        let middle = middle.ok_or_else(|| missing("the stream after attention"))?;
        self.norm_before_backward(layer.norms.before[1], (middle, acts.stats2.take()), &dinput, d, grads)?;

        let dqkv = match early {
            Some(dqkv) => dqkv,
            None => self.attention_backward(index, batch, &mut acts, d, grads)?,
        };
        let stream = acts.stream.take().ok_or_else(|| missing("a layer's input"))?;
        if self.learns(&layer.qkv) {
            let input = acts.normed1.take().unwrap_or_else(|| stream.clone());
            self.project_backward_weight(&layer.qkv, input.view(), dqkv.view(), grads)?;
        }
        self.project_backward_input(&layer.qkv, dqkv.view(), dinput.view())?;
        self.norm_before_backward(layer.norms.before[0], (stream, acts.stats1.take()), &dinput, d, grads)
    }

    /// Backward pass of the norm before a branch, if there is one: adds the cotangent of the branch's input, through the norm of `x`, to
    /// the stream's cotangent `d`.
    fn norm_before_backward(
        &self,
        norm: Option<NormRef>,
        (x, stats): (Tensor, Option<Tensor>),
        dinput: &Tensor,
        d: &Tensor,
        grads: &Buffer,
    ) -> Result<()> {
        let Some(norm) = norm else {
            return self.device.call(&Axpy { x: dinput.view(), y: d.view(), alpha: 1.0 });
        };
        let stats = stats.ok_or_else(|| missing("a norm's statistics"))?;
        self.norm_backward(norm, residual_norm(&x, &stats, dinput, d), grads)
    }

    /// Backward pass of the norm after attention (`which` 0) or the feed-forward block (1): returns the cotangent of the branch's output
    /// before the norm, or `None` if there is no norm, and the cotangent is the stream's.
    fn norm_after_backward(
        &self,
        layer: &Layer,
        which: usize,
        acts: &mut Activations,
        d: &Tensor,
        grads: &Buffer,
    ) -> Result<Option<Tensor>> {
        let Some(norm) = layer.norms.after[which] else { return Ok(None) };
        let x = acts.after[which].take().ok_or_else(|| missing("a branch's output"))?;
        let stats = acts.after_stats[which].take().ok_or_else(|| missing("a norm's statistics"))?;
        let dx = self.device.tensor(d.row_count(), d.column_count())?;
        let (x, stats, dy) = (x.view(), stats.view(), d.view());
        self.norm_backward(norm, NormBackward { x, stats, dy, dx: dx.view(), ..NormBackward::default() }, grads)?;
        Ok(Some(dx))
    }

    /// Backward pass of down projection and activation function: returns the cotangent of the up projections' outputs, stored
    /// in their place.
    fn mlp_backward(&self, layer: &Layer, acts: &mut Activations, d: &Tensor, grads: &Buffer) -> Result<Tensor> {
        let (config, kind) = (&self.config, self.config.activation_kind()?);
        let up = acts.up.take().ok_or_else(|| missing("the feed-forward block's input"))?;
        // The activation is not read again, so its buffer is reused for its cotangent.
        let dactive = match acts.active.take() {
            Some(active) => active,
            None if self.learns(&layer.down) => return Err(missing("an activation")),
            None => self.device.tensor(up.row_count(), config.hidden)?,
        };
        self.project_backward_weight(&layer.down, dactive.view(), d.view(), grads)?;
        self.project_backward_input(&layer.down, d.view(), dactive.view())?;
        match config.family.mlp {
            Mlp::Gated => {
                let (gate, other) = (up.cols(0..config.hidden), up.cols(config.hidden..2 * config.hidden));
                let dy = dactive.view();
                self.device.call(&GluBackward { gate, up: other, dy, dgate: gate, dup: other, kind })?;
            }
            Mlp::Plain => {
                self.device.call(&ActivationBackward { x: up.view(), dy: dactive.view(), dx: up.view(), kind })?
            }
        }
        Ok(up)
    }

    /// Backward pass of output projection, attention and rotation: returns the cotangent of queries, keys and values.
    fn attention_backward(
        &self,
        index: usize,
        batch: &DeviceBatch,
        acts: &mut Activations,
        d: &Tensor,
        grads: &Buffer,
    ) -> Result<Tensor> {
        let (layer, config) = (&self.layers[index], &self.config);
        let attended = acts.attended.take().ok_or_else(|| missing("attention's output"))?;
        let qkv = acts.qkv.take().ok_or_else(|| missing("queries, keys and values"))?;
        let lse = acts.lse.take().ok_or_else(|| missing("attention's log-sum-exp"))?;
        let dbranch = self.norm_after_backward(layer, 0, acts, d, grads)?;
        let d = dbranch.as_ref().unwrap_or(d);
        self.project_backward_weight(&layer.output, attended.view(), d.view(), grads)?;
        let dattended = self.device.tensor(batch.tokens, config.query_width())?;
        self.project_backward_input(&layer.output, d.view(), dattended.view())?;
        drop(dbranch);
        let dqkv = self.device.tensor(batch.tokens, layer.qkv.outputs)?;
        let (q, k) = (config.query_width(), config.kv_width());
        self.device.call(&AttentionBackward {
            q: qkv.cols(0..q),
            k: qkv.cols(q..q + k),
            v: qkv.cols(q + k..q + 2 * k),
            y: attended.view(),
            lse: lse.view(),
            dy: dattended.view(),
            offsets: batch.offsets.view(),
            prefix: batch.prompts.as_ref().map(Tensor::view),
            mask: config.mask(),
            window: config.window(index),
            dq: dqkv.cols(0..q),
            dk: dqkv.cols(q..q + k),
            dv: dqkv.cols(q + k..q + 2 * k),
            heads: config.heads as i64,
            kv_heads: config.kv_heads as i64,
            head_dim: config.head_dim as i64,
            scale: config.attention_scale(),
            softcap: config.score_cap,
        })?;
        self.rotate(index, &dqkv, batch, true)?;
        if let Some(norms) = layer.norms.heads {
            let unnormed = acts.unnormed.take().ok_or_else(|| missing("queries and keys before their norms"))?;
            self.norm_heads_backward(norms, unnormed, &dqkv, grads)?;
        }
        Ok(dqkv)
    }

    /// Runs `op` with the norm's own operands added.
    pub(super) fn norm_backward(&self, norm: NormRef, op: NormBackward, grads: &Buffer) -> Result<()> {
        self.device.call(&NormBackward {
            weight: Some(self.weight(norm.weight)),
            dweight: self.gradient(norm.weight, grads),
            dbias: norm.bias.and_then(|bias| self.gradient(bias, grads)),
            kind: self.config.family.norm,
            weight_offset: self.config.family.norm_offset,
            ..op
        })
    }

    fn embedding_backward(&self, batch: &DeviceBatch, d: &Tensor, grads: &Buffer) -> Result<()> {
        let tables = [
            (Some(self.layout.embedding), &batch.ids, self.embedding_scale()),
            (self.layout.positions, &batch.positions, 1.0),
        ];
        for (table, ids, scale) in tables {
            if let Some(dtable) = table.and_then(|index| self.gradient(index, grads)) {
                self.device.call(&EmbeddingBackward { ids: ids.view(), dy: d.view(), dtable, scale })?;
            }
        }
        Ok(())
    }
}

/// Backward pass of a norm inside the residual stream: adds the branch's cotangent, `dy` through the norm, to the stream's
/// cotangent `d`.
fn residual_norm(x: &Tensor, stats: &Tensor, dy: &Tensor, d: &Tensor) -> NormBackward {
    NormBackward {
        x: x.view(),
        stats: stats.view(),
        dy: dy.view(),
        dsum: Some(d.view()),
        dx: d.view(),
        ..NormBackward::default()
    }
}
