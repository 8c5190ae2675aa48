//! The backward pass of the decoder: from the cotangent of the last hidden states to gradients in a flat buffer.
//!
//! One buffer carries the cotangent of the residual stream down through all layers; activations are freed after use.

use plugin_api::backend::ops::{ActivationBackward, AttentionBackward, EmbeddingBackward, GluBackward, NormBackward};

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
        let pass = Pass { batch: &batch, attend: &Attend::Packed, kept: Kept::EVERYTHING, backward: true };
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
        let layer = layout.layers.iter().position(|layer| {
            let linears = layer.qkv.iter().chain(&layer.up).chain([&layer.output, &layer.down]);
            let norms = [layer.norm1, layer.norm2].into_iter().chain(layer.head_norms.into_iter().flatten());
            norms.into_iter().any(norm_learns) || linears.into_iter().any(linear_learns)
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
        let dup = self.mlp_backward(layer, &mut acts, d, grads)?;
        let normed = acts.normed2.take().ok_or_else(|| missing("a norm"))?;
        self.project_backward_weight(&layer.up, normed.view(), dup.view(), grads)?;
        drop(normed);
        let dnormed = self.device.tensor(tokens, self.config.dim)?;
        self.project_backward_input(&layer.up, dup.view(), dnormed.view())?;
        drop(dup);
        let middle = acts.middle.take().ok_or_else(|| missing("the stream after attention"))?;
        let stats = acts.stats2.take().ok_or_else(|| missing("a norm's statistics"))?;
        self.norm_backward(layer.norm2, residual_norm(&middle, &stats, &dnormed, d), grads)?;
        drop(middle);

        let dqkv = self.attention_backward(index, batch, &mut acts, d, grads)?;
        let normed = acts.normed1.take().ok_or_else(|| missing("a norm"))?;
        self.project_backward_weight(&layer.qkv, normed.view(), dqkv.view(), grads)?;
        self.project_backward_input(&layer.qkv, dqkv.view(), dnormed.view())?;
        let stream = acts.stream.take().ok_or_else(|| missing("a layer's input"))?;
        let stats = acts.stats1.take().ok_or_else(|| missing("a norm's statistics"))?;
        self.norm_backward(layer.norm1, residual_norm(&stream, &stats, &dnormed, d), grads)
    }

    /// Backward pass of down projection and activation function: returns the cotangent of the up projections' outputs, stored
    /// in their place.
    fn mlp_backward(&self, layer: &Layer, acts: &mut Activations, d: &Tensor, grads: &Buffer) -> Result<Tensor> {
        let (config, kind) = (&self.config, self.config.activation_kind()?);
        let active = acts.active.take().ok_or_else(|| missing("an activation"))?;
        let up = acts.up.take().ok_or_else(|| missing("the feed-forward block's input"))?;
        self.project_backward_weight(&layer.down, active.view(), d.view(), grads)?;
        // The activation is not read again, so its buffer is reused for its cotangent.
        let dactive = active;
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
        self.project_backward_weight(&layer.output, attended.view(), d.view(), grads)?;
        let dattended = self.device.tensor(batch.tokens, config.query_width())?;
        self.project_backward_input(&layer.output, d.view(), dattended.view())?;
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
            ..AttentionBackward::default()
        })?;
        self.rotate(&dqkv, batch, true)?;
        if let Some(norms) = layer.head_norms {
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
            ..op
        })
    }

    fn embedding_backward(&self, batch: &DeviceBatch, d: &Tensor, grads: &Buffer) -> Result<()> {
        let tables = [(Some(self.layout.embedding), &batch.ids), (self.layout.positions, &batch.positions)];
        for (table, ids) in tables {
            if let Some(dtable) = table.and_then(|index| self.gradient(index, grads)) {
                self.device.call(&EmbeddingBackward { ids: ids.view(), dy: d.view(), dtable, scale: 1.0 })?;
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
