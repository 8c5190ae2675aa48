//! Rounds numbers of 64 bits to 16 bits: to the nearest value, ties to even, in one step.
//!
//! `from_f64` of the library `half` drops the lower 32 bits before it rounds, so that a value just above a tie is rounded
//! down; for `f16` some processors round twice, by way of `f32`.

use half::{bf16, f16};

/// The bfloat16 nearest to `value`; beyond its range, an infinity.
pub fn nearest_bf16(value: f64) -> bf16 {
    bf16::from_f32(to_odd(value))
}

/// The 16-bit float nearest to `value`; beyond its range, an infinity.
pub fn nearest_f16(value: f64) -> f16 {
    f16::from_f32(to_odd(value))
}

/// Rounds to odd: a value that f32 does not have becomes the one of its two neighbours whose last bit is 1. Rounding
/// that to fewer bits gives what rounding `value` does (Boldo and Melquiond, "When double rounding is odd", 2005).
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() {
        return near;
    }
    let below = near.to_bits() - u32::from(f64::from(near).abs() > value.abs());
    f32::from_bits(below | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 16-bit value that is not negative, as f64, ascending, ended by the infinity.
    fn ladder(value: impl Fn(u16) -> f64) -> Vec<f64> {
        (0..0x8000).map(value).take_while(|value| !value.is_nan()).collect()
    }

    /// The bits of the value nearest to `value` by its definition: the closer of its two neighbours, of equally close ones
    /// the even. The step above the largest finite value counts as large as the one below it.
    fn expected(ladder: &[f64], value: f64) -> u16 {
        let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
        let size = value.abs();
        let above = ladder.partition_point(|step| *step < size);
        if ladder[above] == size {
            return sign | above as u16;
        }
        let (low, last) = (ladder[above - 1], ladder.len() - 1);
        let high = if above == last { low + (low - ladder[above - 2]) } else { ladder[above] };
        let is_up = match (size - low).total_cmp(&(high - size)) {
            std::cmp::Ordering::Equal => above.is_multiple_of(2),
            order => order.is_gt(),
        };
        sign | (above - usize::from(!is_up)) as u16
    }

    /// Catches rounding that drops the lower half of a mantissa first, as `bf16::from_f64` does: 0x3f808001 would become 0x3f80.
    #[test]
    fn every_lower_half_is_rounded_to_the_nearest() {
        let steps = ladder(|bits| bf16::from_bits(bits).to_f64());
        // Ordinary numbers, even and odd; subnormal ones; the smallest normal and the largest.
        for upper in [0x3f80_u32, 0x3f81, 0xbf80, 0x4049, 0x0000, 0x8000, 0x0001, 0x007f, 0x0080, 0x7f7f, 0xff7f] {
            for lower in 0..=0xffff_u32 {
                let value = f32::from_bits(upper << 16 | lower);
                let found = nearest_bf16(f64::from(value)).to_bits();
                assert_eq!(found, expected(&steps, f64::from(value)), "{upper:04x}{lower:04x}");
            }
        }
        assert_eq!(nearest_bf16(f64::from(f32::from_bits(0x3f80_8001))).to_bits(), 0x3f81);
    }

    /// Catches two roundings, by way of f32: the first would turn a value next to a tie into the tie. For both types.
    #[test]
    fn values_of_64_bits_are_rounded_once() {
        let of_bf16 = ladder(|bits| bf16::from_bits(bits).to_f64());
        let of_f16 = ladder(|bits| f16::from_bits(bits).to_f64());
        let check = |value: f64| {
            assert_eq!(nearest_bf16(value).to_bits(), expected(&of_bf16, value), "bf16 of {value:e}");
            assert_eq!(nearest_f16(value).to_bits(), expected(&of_f16, value), "f16 of {value:e}");
        };
        for steps in [&of_bf16, &of_f16] {
            for pair in steps.windows(2).filter(|pair| pair[1].is_finite()) {
                let tie = pair[0] + (pair[1] - pair[0]) / 2.0;
                for value in [pair[0], tie.next_down(), tie, tie.next_up()] {
                    check(value);
                    check(-value);
                }
            }
        }
        for value in [65_519.999, 65_520.0, 3.39e38, 3.3961e38, 1e300, f64::MAX, 5e-324, f64::INFINITY] {
            check(value);
            check(-value);
        }
        for nan in [f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)] {
            assert!(nearest_bf16(nan).is_nan() && nearest_f16(nan).is_nan());
        }
    }
}
