//! Keys and values of earlier tokens, a slot per sample: filled by a packed forward pass, extended a token at a time.
//!
//! A cache belongs to the weights that filled it: make a new one after an update.

use std::ops::Range;

use plugin_api::abi::View;
use plugin_api::backend::ops::Copy;

use super::Model;
use super::activations::{BatchView, DeviceBatch, Keep};
use super::decoder::Attend;
use crate::device::Tensor;
use crate::error::{Error, Result};

/// Keys and values by layer, `[slots * capacity, K]` each.
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    slots: u64,
    capacity: u64,
}

/// Which tokens of a packed batch start which slot.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    tokens: Range<u64>,
    slot: u64,
}

/// Token rows, and the cache rows of keys and values they go to.
type Destination = (Range<u64>, (View, View));

impl KvCache {
    /// An empty cache for `slots` samples of at most `capacity` tokens.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(model: &Model, slots: u64, capacity: u64) -> Result<KvCache> {
        let width = model.config.kv_width();
        let table = || model.device.tensor(slots * capacity, width);
        let layers = (0..model.config.layers).map(|_| Ok((table()?, table()?))).collect::<Result<_>>()?;
        Ok(KvCache { layers, slots, capacity })
    }

    /// Tokens a slot holds at most.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn layer(&self, index: usize) -> Result<(View, View)> {
        let (keys, values) = self.layers.get(index).ok_or_else(|| Error::run("the cache is of another model"))?;
        Ok((keys.view(), values.view()))
    }

    pub(super) fn destinations(&self, index: usize, fills: &[Fill]) -> Result<Vec<Destination>> {
        let (keys, values) = self.layer(index)?;
        let destination = |fill: &Fill| {
            let start = fill.slot * self.capacity;
            let rows = start..start + (fill.tokens.end - fill.tokens.start);
            let to = (crate::device::rows(keys, rows.clone()), crate::device::rows(values, rows));
            (fill.tokens.clone(), to)
        };
        Ok(fills.iter().map(destination).collect())
    }
}

impl Model {
    /// Runs packed prompts, sequence s into slot `slots[s]`, and yields the last hidden states, `[N, D]`.
    ///
    /// # Errors
    /// A prompt longer than the cache's capacity, a slot that is not there; as [`Model::forward`].
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

    /// Copies the keys and values of the first `tokens` tokens of slot `from` to slot `to`: what a prefill of the same
    /// tokens would leave there.
    ///
    /// # Errors
    /// A slot that is not there, or more tokens than it holds; the backend's.
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

    /// Runs one more token for each of some slots: `tokens[b]` is token number `lengths[b]` of slot `slots[b]`. Yields
    /// the last hidden states, `[B, D]`.
    ///
    /// # Errors
    /// A full slot or one given twice; the backend's.
    pub fn decode(&self, tokens: &[i32], slots: &[i32], lengths: &[i32], cache: &KvCache) -> Result<Tensor> {
        let batch = DeviceBatch {
            tokens: tokens.len() as u64,
            ids: self.device.ints(tokens)?,
            positions: self.device.ints(lengths)?,
            offsets: self.device.ints(&[])?,
        };
        let slots = self.device.ints(slots)?;
        let attend = Attend::Decode { cache, slots: &slots, lengths: &batch.positions };
        Ok(self.run(&batch, Keep::Nothing, &attend)?.0)
    }
}
