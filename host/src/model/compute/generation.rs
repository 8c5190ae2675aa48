//! Decoding over cached keys and values: prompts fill the cache, then one token after another is appended.

use plugin_api::backend::ops::Copy;

use super::activations::{BatchView, DeviceBatch, Keep};
use super::cache::{Fill, KvCache};
use super::decoder::Attend;
use crate::device::Tensor;
use crate::error::{Error, Result};
use crate::model::loaded::Model;

impl Model {
    /// Runs packed prompts, sequence s into slot `slots[s]`, and returns the last hidden states, `[N, D]`. With the attention mask
    /// `prefix` a prompt must be whole: its tokens attend to each other, while those that follow are decoded causally, so that the
    /// cached keys and values stay right.
    ///
    /// # Errors
    /// A prompt longer than the cache's capacity, a slot that does not exist; as [`Model::forward`].
    pub fn prefill(&self, batch: BatchView<'_>, cache: &KvCache, slots: &[u64]) -> Result<Tensor> {
        let device_batch = self.upload_batch(batch)?;
        if slots.len() + 1 != batch.offsets.len() {
            return Err(Error::run(format!("prefill: {} slots for {} offsets", slots.len(), batch.offsets.len())));
        }
        let mut fills = Vec::with_capacity(slots.len());
        for (ends, slot) in batch.offsets.windows(2).zip(slots) {
            let tokens = ends[0] as u64..ends[1] as u64;
            if tokens.end - tokens.start > cache.capacity || *slot >= cache.slots {
                let what = format!("{} tokens for slot {slot}", tokens.end - tokens.start);
                return Err(Error::run(format!("prefill: {what} of {} x {}", cache.slots, cache.capacity)));
            }
            fills.push(Fill { tokens, slot: *slot });
        }
        Ok(self.run(&device_batch, Keep::Nothing, &Attend::Prefill(cache, &fills))?.0)
    }

    /// Copies the keys and values of the first `tokens` tokens of slot `from` to slot `to`, with the same result as a prefill
    /// of these tokens (all tokens of a prompt, if the attention mask is `prefix`).
    ///
    /// # Errors
    /// A slot that does not exist, or more tokens than a slot holds; errors of the backend.
    pub fn copy_slot(&self, cache: &KvCache, from: u64, to: u64, tokens: u64) -> Result<()> {
        if from.max(to) >= cache.slots || tokens > cache.capacity {
            let what = format!("{tokens} tokens from slot {from} to {to}");
            return Err(Error::run(format!("copy_slot: {what} of {} x {}", cache.slots, cache.capacity)));
        }
        let place = |table: &Tensor, slot: u64| table.rows(slot * cache.capacity..slot * cache.capacity + tokens);
        for table in cache.layers.iter().flat_map(|(keys, values)| [keys, values]) {
            self.device.call(&Copy { x: place(table, from), y: place(table, to) })?;
        }
        Ok(())
    }

    /// Copies the keys and values of the first `tokens` tokens of slot 0 to slot 0 of a larger cache.
    ///
    /// # Errors
    /// More tokens than a slot of either holds; errors of the backend.
    pub fn copy_cache(&self, from: &KvCache, to: &KvCache, tokens: u64) -> Result<()> {
        if tokens > from.capacity.min(to.capacity) || from.layers.len() != to.layers.len() {
            let what = format!("{tokens} tokens from a cache of {} to one of {}", from.capacity, to.capacity);
            return Err(Error::run(format!("copy_cache: {what}")));
        }
        let tables = |cache: &KvCache| -> Vec<Tensor> {
            cache.layers.iter().flat_map(|(k, v)| [k.clone(), v.clone()]).collect()
        };
        for (x, y) in tables(from).iter().zip(tables(to)) {
            self.device.call(&Copy { x: x.rows(0..tokens), y: y.rows(0..tokens) })?;
        }
        Ok(())
    }

    /// Runs one more token for each of some slots: `tokens[b]` is token number `lengths[b]` of slot `slots[b]`. Returns the
    /// last hidden states, `[B, D]`.
    ///
    /// # Errors
    /// A full slot or one given twice; errors of the backend.
    pub fn decode(&self, tokens: &[i32], slots: &[i32], lengths: &[i32], cache: &KvCache) -> Result<Tensor> {
        let batch = DeviceBatch {
            tokens: tokens.len() as u64,
            ids: self.device.ints(tokens)?,
            positions: self.device.ints(lengths)?,
            offsets: self.device.ints(&[])?,
            prompts: None,
        };
        let slots = self.device.ints(slots)?;
        let attend = Attend::Decode { cache, slots: &slots, lengths: &batch.positions };
        Ok(self.run(&batch, Keep::Nothing, &attend)?.0)
    }
}
