//! Keys and values of earlier tokens, with a slot for each sample: filled by a packed forward pass, extended one token at a
//! time.
//!
//! A cache is valid only for the weights that filled it: create a new one after an update.

use std::ops::Range;

use plugin_api::abi::View;

use crate::device::Tensor;
use crate::error::{Error, Result};
use crate::model::loaded::Model;

/// Keys and values by layer, `[slots * capacity, K]` each.
pub struct KvCache {
    pub(super) layers: Vec<(Tensor, Tensor)>,
    pub(super) slots: u64,
    pub(super) capacity: u64,
}

/// Which tokens of a packed batch go to the beginning of which slot.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    pub(super) tokens: Range<u64>,
    pub(super) slot: u64,
}

/// Token rows, and the cache rows for their keys and values.
type Destination = (Range<u64>, (View, View));

impl KvCache {
    /// Creates an empty cache for `slots` samples of at most `capacity` tokens.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(model: &Model, slots: u64, capacity: u64) -> Result<KvCache> {
        let width = model.config.kv_width();
        let table = || model.device.tensor(slots * capacity, width);
        let layers = (0..model.config.layers).map(|_| Ok((table()?, table()?))).collect::<Result<_>>()?;
        Ok(KvCache { layers, slots, capacity })
    }

    /// Maximum tokens of a slot.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn layer(&self, index: usize) -> Result<(View, View)> {
        let (keys, values) = self.layers.get(index).ok_or_else(|| Error::run("the cache belongs to another model"))?;
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
