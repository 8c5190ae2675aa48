//! The arrays that `prepare` returns for a whole window; each micro-batch receives its own part of them.

use std::borrow::Cow;

use plugin_api::batch::{Array, Batch, Scope};

use super::micro_batch::MicroBatchRange;

/// The arrays that each objective's `prepare` returned for the whole window.
#[derive(Debug, Clone, Default)]
pub struct PreparedArrays(Vec<Batch<'static>>);

impl FromIterator<Batch<'static>> for PreparedArrays {
    fn from_iter<T: IntoIterator<Item = Batch<'static>>>(arrays: T) -> Self {
        PreparedArrays(arrays.into_iter().collect())
    }
}

impl PreparedArrays {
    /// Returns the micro-batch `batch` with its part of the arrays that objective `index` prepared.
    pub fn with<'a>(&self, index: usize, batch: &'a Batch<'a>, part: MicroBatchRange) -> Cow<'a, Batch<'a>> {
        let Some(own) = self.0.get(index).filter(|own| !own.arrays().is_empty()) else { return Cow::Borrowed(batch) };
        let mut all = batch.clone();
        for array in own.arrays() {
            let (first, rows) = match array.scope {
                Scope::TOKEN => part.tokens(),
                Scope::SEQUENCE => part.sequences(),
                _ => (0, array.rows()),
            };
            let data: Vec<f64> = array.data.iter().skip(first * array.cols).take(rows * array.cols).copied().collect();
            all = all.with_array(Array { data: data.into(), ..array.clone() });
        }
        Cow::Owned(all)
    }
}
