//! Operands on the host: values in f64 with a shape, and their bytes in any dtype.

use half::bf16;
use plugin_api::abi::DType;
use telos_random::SplitMix64;

/// The values of one operand.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// `rows * cols` values.
    pub data: Vec<f64>,
    /// The dtype, if the operand's class leaves it open; the compute dtype otherwise.
    pub dtype: Option<DType>,
}

impl Tensor {
    /// A matrix filled by calls of `f`.
    pub fn generate(rows: usize, cols: usize, f: impl FnMut() -> f64) -> Self {
        let data = std::iter::repeat_with(f).take(rows * cols).collect();
        Tensor { rows, cols, data, dtype: None }
    }

    /// Standard normal values.
    pub fn normal(rng: &mut SplitMix64, rows: usize, cols: usize) -> Self {
        Tensor::generate(rows, cols, || rng.normal())
    }

    /// Multiples of 1/8 in [-1, 1]: their products and sums are exact in f32, so that equal logits are equal on every backend and
    /// unequal ones keep their order.
    pub fn grid(rng: &mut SplitMix64, rows: usize, cols: usize) -> Self {
        Tensor::generate(rows, cols, || rng.below(17) as f64 / 8.0 - 1.0)
    }

    /// A row of indices in `0..size`.
    pub fn indices(rng: &mut SplitMix64, count: usize, size: usize) -> Self {
        Tensor::generate(1, count, || rng.below(size) as f64)
    }

    /// One row of the given values.
    pub fn row(values: impl IntoIterator<Item = f64>) -> Self {
        let data: Vec<f64> = values.into_iter().collect();
        Tensor { rows: 1, cols: data.len(), data, dtype: None }
    }

    /// The cumulative sums of `lengths`, starting at 0.
    pub fn offsets(lengths: &[usize]) -> Self {
        let mut end = 0;
        let ends = lengths.iter().map(|length| {
            end += length;
            end as f64
        });
        Tensor::row(std::iter::once(0.0).chain(ends.collect::<Vec<_>>()))
    }

    /// NaN everywhere: the content of an output before it is written.
    pub fn garbage(rows: usize, cols: usize) -> Self {
        Tensor::generate(rows, cols, || f64::NAN)
    }

    /// The same values, of a given dtype.
    #[must_use]
    pub fn typed(self, dtype: DType) -> Self {
        Tensor { dtype: Some(dtype), ..self }
    }

    /// The same values times `factor`.
    #[must_use]
    pub fn times(mut self, factor: f64) -> Self {
        self.data.iter_mut().for_each(|x| *x *= factor);
        self
    }
}

/// The little-endian bytes of `value` as `dtype`.
pub fn encode(dtype: DType, value: f64, bytes: &mut Vec<u8>) {
    match dtype {
        DType::F64 => bytes.extend(value.to_le_bytes()),
        DType::F32 => bytes.extend((value as f32).to_le_bytes()),
        DType::BF16 => bytes.extend(bf16::from_f32(value as f32).to_le_bytes()),
        _ => bytes.extend((value as i32).to_le_bytes()),
    }
}

/// The element at `bytes`.
pub fn decode(dtype: DType, bytes: &[u8]) -> f64 {
    let word = |n: usize| {
        let mut word = [0; 8];
        word[..n].copy_from_slice(&bytes[..n]);
        word
    };
    match dtype {
        DType::F64 => f64::from_le_bytes(word(8)),
        DType::F32 => f64::from(f32::from_bits(u64::from_le_bytes(word(4)) as u32)),
        DType::BF16 => bf16::from_bits(u64::from_le_bytes(word(2)) as u16).to_f64(),
        _ => f64::from(u64::from_le_bytes(word(4)) as u32 as i32),
    }
}

/// Bytes of an element; every dtype of the suite has one.
pub fn size_of(dtype: DType) -> usize {
    dtype.size().unwrap_or(1)
}
