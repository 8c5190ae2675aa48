//! A buffer in host memory: one vector of the buffer's dtype, with conversions to f64 and back.

use half::bf16;
use plugin_api::{
    Code, Error, Result,
    backend::{DType, Storage},
};

/// The elements of one buffer.
pub enum Buffer {
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 32-bit floats.
    F32(Vec<f32>),
    /// bfloat16.
    Bf16(Vec<bf16>),
    /// 32-bit integers.
    I32(Vec<i32>),
}

/// A zeroed vector; out of memory is an ordinary error.
fn zeros<T: bytemuck::Zeroable + Clone>(elements: u64) -> Result<Vec<T>> {
    let refused = || Error::new(Code::OUT_OF_MEMORY, format!("alloc: no memory for {elements} elements"));
    let length = usize::try_from(elements).map_err(|_| refused())?;
    let mut memory = Vec::new();
    memory.try_reserve_exact(length).map_err(|_| refused())?;
    memory.resize(length, T::zeroed());
    Ok(memory)
}

impl Storage for Buffer {
    type Device = ();

    fn allocate(_: &(), dtype: DType, elements: u64) -> Result<Self> {
        match dtype {
            DType::F64 => zeros(elements).map(Buffer::F64),
            DType::F32 => zeros(elements).map(Buffer::F32),
            DType::BF16 => zeros(elements).map(Buffer::Bf16),
            DType::I32 => zeros(elements).map(Buffer::I32),
            other => Err(Error::new(Code::DTYPE, format!("alloc: {other} is unknown here"))),
        }
    }
}

impl Buffer {
    /// The elements as bytes, in the processor's order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Buffer::F64(data) => bytemuck::cast_slice(data),
            Buffer::F32(data) => bytemuck::cast_slice(data),
            Buffer::Bf16(data) => bytemuck::cast_slice(data),
            Buffer::I32(data) => bytemuck::cast_slice(data),
        }
    }

    /// The elements as bytes to write to.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::F64(data) => bytemuck::cast_slice_mut(data),
            Buffer::F32(data) => bytemuck::cast_slice_mut(data),
            Buffer::Bf16(data) => bytemuck::cast_slice_mut(data),
            Buffer::I32(data) => bytemuck::cast_slice_mut(data),
        }
    }

    /// Appends elements `start..start + out.len()` as f64.
    pub fn read(&self, start: usize, length: usize, out: &mut Vec<f64>) {
        let range = start..start + length;
        match self {
            Buffer::F64(data) => out.extend_from_slice(&data[range]),
            Buffer::F32(data) => out.extend(data[range].iter().map(|&x| f64::from(x))),
            Buffer::Bf16(data) => out.extend(data[range].iter().map(|&x| x.to_f64())),
            Buffer::I32(data) => out.extend(data[range].iter().map(|&x| f64::from(x))),
        }
    }

    /// Writes `values` to the elements that start at `start`, rounded to nearest even.
    pub fn write(&mut self, start: usize, values: &[f64]) {
        let range = start..start + values.len();
        match self {
            Buffer::F64(data) => data[range].copy_from_slice(values),
            Buffer::F32(data) => data[range].iter_mut().zip(values).for_each(|(d, &v)| *d = v as f32),
            Buffer::Bf16(data) => data[range].iter_mut().zip(values).for_each(|(d, &v)| *d = round_bf16(v)),
            Buffer::I32(data) => data[range].iter_mut().zip(values).for_each(|(d, &v)| *d = v as i32),
        }
    }
}

/// The bfloat16 nearest to `value`, ties to even.
///
/// `bf16::from_f64` drops the lower half of the mantissa before it rounds, so that a value just above a tie is rounded down.
/// Rounding to odd in f32 first preserves that something was below.
fn round_bf16(value: f64) -> bf16 {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() {
        return bf16::from_f32(near);
    }
    let below = if f64::from(near).abs() > value.abs() { near.to_bits() - 1 } else { near.to_bits() };
    bf16::from_f32(f32::from_bits(below | 1))
}

/// Whether the reference computes with operands of `dtype`.
pub fn computes(dtype: DType) -> bool {
    matches!(dtype, DType::F64 | DType::F32 | DType::BF16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_rounds_to_nearest_even_next_to_a_tie() {
        let step = 1.0 / 128.0;
        for (value, expected) in [
            (1.0, 1.0),
            (1.0 + step / 2.0, 1.0),
            (1.0 + step * 1.5, 1.0 + step * 2.0),
            (1.0 + step / 2.0 + 1e-15, 1.0 + step),
            (1.0 + step / 2.0 - 1e-15, 1.0),
            (-1.0 - step / 2.0 - 1e-15, -1.0 - step),
            (1e300, f64::INFINITY),
            (0.0, 0.0),
        ] {
            assert_eq!(round_bf16(value).to_f64(), expected, "{value}");
        }
        assert!(round_bf16(f64::NAN).is_nan());
    }
}
