//! The arrays that `prepare` returns for a whole window; each micro-batch receives its own part of them.

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
    /// Returns the micro-batch `batch` with its part of the arrays that objective `index` prepared. The numbers of `batch` are
    /// not copied.
    pub fn with<'a>(&self, index: usize, batch: &'a Batch<'_>, part: MicroBatchRange) -> Batch<'a> {
        let mut all = borrowed(batch);
        for array in self.0.get(index).into_iter().flat_map(Batch::arrays) {
            let (first, rows) = match array.scope {
                Scope::TOKEN => part.tokens(),
                Scope::SEQUENCE => part.sequences(),
                _ => (0, array.rows()),
            };
            let data: Vec<f64> = array.data.iter().skip(first * array.cols).take(rows * array.cols).copied().collect();
            all = all.with_array(Array { data: data.into(), ..array.clone() });
        }
        all
    }
}

/// Returns a batch that refers to the arrays of `batch`.
pub fn borrowed<'a>(batch: &'a Batch<'_>) -> Batch<'a> {
    batch.arrays().iter().fold(Batch::new(), |all, array| {
        all.with_array(Array {
            name: array.name.as_ref().into(),
            scope: array.scope,
            differentiable: array.differentiable,
            cols: array.cols,
            data: array.data.as_ref().into(),
        })
    })
}
