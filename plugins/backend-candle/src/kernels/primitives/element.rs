//! The numbers that buffers hold, f32 and bf16. Kernels compute in f32: they load, compute and store, so each is written once.

use half::bf16;
use plugin_api::backend::DType;

/// A stored number.
pub trait Element: Copy + Send + Sync + 'static {
    /// Its dtype.
    const DTYPE: DType;

    /// The number as f32, exactly.
    fn load(self) -> f32;

    /// `x`, rounded to nearest even.
    fn store(x: f32) -> Self;

    /// `x`, rounded once.
    fn of_f64(x: f64) -> Self;

    /// A row as f32: the row itself, or a copy in `scratch`, which is at least as long.
    fn floats<'a>(row: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];
}

/// Whether `E` is f32.
pub const fn is_f32<E: Element>() -> bool {
    E::DTYPE.0 == DType::F32.0
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(x: f32) -> f32 {
        x
    }

    fn of_f64(x: f64) -> f32 {
        x as f32
    }

    #[inline(always)]
    fn floats<'a>(row: &'a [f32], _: &'a mut [f32]) -> &'a [f32] {
        row
    }
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;

    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without a branch, so that loops become vector code.
    #[inline(always)]
    fn store(x: f32) -> bf16 {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        // Rounding could turn a NaN into infinity, so a NaN is truncated and keeps a set mantissa bit.
        let word = if x.is_nan() { (bits >> 16) | 0x40 } else { rounded >> 16 };
        bf16::from_bits(word as u16)
    }

    /// By way of f32 rounded to odd, so that a value just above a tie is not rounded down.
    fn of_f64(x: f64) -> bf16 {
        let near = x as f32;
        if f64::from(near) == x || x.is_nan() {
            return Self::store(near);
        }
        let below = near.to_bits() - u32::from(f64::from(near).abs() > x.abs());
        Self::store(f32::from_bits(below | 1))
    }

    #[inline(always)]
    fn floats<'a>(row: &'a [bf16], scratch: &'a mut [f32]) -> &'a [f32] {
        let scratch = &mut scratch[..row.len()];
        load_row(scratch, row);
        scratch
    }
}

/// `to = from`, as f32.
#[inline(always)]
pub fn load_row<E: Element>(to: &mut [f32], from: &[E]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.load();
    }
}

/// `to = from`, rounded to nearest even.
#[inline(always)]
pub fn store_row<E: Element>(to: &mut [E], from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = E::store(*from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a number of 64 bits whose lower half is dropped before it is rounded, and one that is rounded twice.
    #[test]
    fn numbers_of_64_bits_are_rounded_once() {
        let tie = 1.0 + 1.0 / 256.0;
        for (x, expected) in
            [(tie, 0x3f80), (tie + 1e-9, 0x3f81), (tie - 1e-9, 0x3f80), (-tie - 1e-9, 0xbf81), (1e300, 0x7f80)]
        {
            assert_eq!(<bf16 as Element>::of_f64(x).to_bits(), expected, "{x}");
        }
        assert!(<bf16 as Element>::of_f64(f64::NAN).is_nan());
    }

    /// Catches rounding half up, a carry into the wrong bits, and a NaN that becomes infinite.
    #[test]
    fn bf16_is_rounded_to_nearest_even_and_keeps_nan() {
        let mut bits = 0u32;
        loop {
            let x = f32::from_bits(bits);
            let (own, expected) = (<bf16 as Element>::store(x), bf16::from_f32(x));
            assert_eq!(own.is_nan(), x.is_nan(), "{bits:x}");
            assert!(x.is_nan() || own.to_bits() == expected.to_bits(), "{bits:x}: {own} instead of {expected}");
            assert!(own.is_nan() || own.load() == own.to_f32());
            match bits.checked_add(977) {
                Some(next) => bits = next,
                None => return,
            }
        }
    }
}
