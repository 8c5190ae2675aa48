//! Functions of one f32 that the compiler turns into vector code, without branches and calls.
//!
//! The coefficients are our own minimax fits (weighted least squares, reweighted towards the largest error, in 40 digits), rounded
//! to f32. The tests measure the errors stated here against f64.

use super::element::Element;

/// `e^x` for `x <= 0` (exact 0 below -87.3, NaN kept). At most 2 units in the last place.
#[inline(always)]
pub fn exp_nonpositive(x: f32) -> f32 {
    const LOWEST: f32 = -87.33654;
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const LN2_HIGH: f32 = 0.693_145_75;
    const LN2_LOW: f32 = 1.428_606_8e-6;
    let t = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut q = 0.001_395_048_9f32;
    q = q.mul_add(r, 0.008_368_89);
    q = q.mul_add(r, 0.041_666_206);
    q = q.mul_add(r, 0.166_665_18);
    q = q.mul_add(r, 0.5);
    let e = (q * r).mul_add(r, r) + 1.0;
    let power = f32::from_bits((t.to_bits() << 23).wrapping_add(127 << 23));
    if x < LOWEST { 0.0 } else { e * power }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp_nonpositive(-x.abs());
    let small = e / (1.0 + e);
    if x < 0.0 { small } else { 1.0 - small }
}

/// `ln(1 + x)` for `0 <= x <= 1`: `2 artanh(x / (2 + x))` by its series, whose rest is below half a unit in the last place. At most 2
/// units in the last place.
#[inline(always)]
pub fn ln_1p_fraction(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let t = s * s;
    let mut p = 1.0f32 / 15.0;
    p = p.mul_add(t, 1.0 / 13.0);
    p = p.mul_add(t, 1.0 / 11.0);
    p = p.mul_add(t, 1.0 / 9.0);
    p = p.mul_add(t, 1.0 / 7.0);
    p = p.mul_add(t, 1.0 / 5.0);
    p = p.mul_add(t, 1.0 / 3.0);
    2.0 * (p * t).mul_add(s, s)
}

/// `tanh x`. At most 3 units in the last place.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let mut p = -0.005_717_032_6f32;
    p = p.mul_add(s, 0.020_650_575);
    p = p.mul_add(s, -0.053_743_493);
    p = p.mul_add(s, 0.133_314_91);
    p = p.mul_add(s, -0.333_332_84);
    let near = (p * s).mul_add(x, x);
    let e = exp_nonpositive(-2.0 * a);
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    if a < 0.625 { near } else { far }
}

/// The error function. At most 3 units in the last place.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let s = x * x;
    let mut p = 7.889_12e-5f32;
    p = p.mul_add(s, -0.000_802_084_16);
    p = p.mul_add(s, 0.005_189_535);
    p = p.mul_add(s, -0.026_854_444);
    p = p.mul_add(s, 0.112_836);
    p = p.mul_add(s, -0.376_126_26);
    p = p.mul_add(s, 0.128_379_17);
    let near = p.mul_add(x, x);
    // -ln erfc: a polynomial on [1, 4]; beyond 4 erf is 1 in f32.
    let b = if a > 4.0 { 4.0 } else { a };
    let mut q = -2.120_708_2e-7f32;
    q = q.mul_add(b, 2.475_402e-5);
    q = q.mul_add(b, -0.000_460_356_5);
    q = q.mul_add(b, 0.004_270_631_4);
    q = q.mul_add(b, -0.025_348_915);
    q = q.mul_add(b, 0.108_606_584);
    q = q.mul_add(b, 0.633_065_76);
    q = q.mul_add(b, 1.129_649_3);
    q = q.mul_add(b, -0.000_202_064_43);
    let far = (1.0 - exp_nonpositive(-q)).copysign(x);
    if a < 1.0 { near } else { far }
}

/// Lanes of a sum: enough to fill the widest registers, and the same on every processor, so that the order of a sum does not
/// depend on the processor.
pub const LANES: usize = 16;

/// Adds the lanes (a power of two) up in a fixed tree.
#[inline(always)]
pub fn tree<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `sum f(x[i], y[i] ...)` over equally long slices, by lanes.
#[inline(always)]
pub fn sum<const K: usize>(xs: [&[f32]; K], f: impl Fn([f32; K]) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let parts = xs.map(|x| x.as_chunks::<LANES>());
    for c in 0..parts[0].0.len() {
        let chunk = parts.map(|(chunks, _)| &chunks[c]);
        for l in 0..LANES {
            lanes[l] += f(chunk.map(|x| x[l]));
        }
    }
    for l in 0..parts[0].1.len() {
        lanes[l] += f(parts.map(|(_, rest)| rest[l]));
    }
    tree(lanes)
}

/// `sum x y`.
#[inline(always)]
pub fn dot<E: Element>(x: &[E], y: &[E]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((xs, xr), (ys, yr)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (a, b) in xs.iter().zip(ys) {
        for l in 0..LANES {
            lanes[l] = a[l].load().mul_add(b[l].load(), lanes[l]);
        }
    }
    for (l, (a, b)) in xr.iter().zip(yr).enumerate() {
        lanes[l] = a.load().mul_add(b.load(), lanes[l]);
    }
    tree(lanes)
}

/// The largest element; minus infinity if there are none. NaN is skipped.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for a in chunks {
        for l in 0..LANES {
            lanes[l] = larger(a[l], lanes[l]);
        }
    }
    for (lane, v) in lanes.iter_mut().zip(rest) {
        *lane = larger(*v, *lane);
    }
    tree_max(lanes)
}

/// `a` where it is larger than `b`.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The largest lane.
#[inline(always)]
pub fn tree_max<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = larger(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `y += a x`.
#[inline(always)]
pub fn add_scaled<E: Element>(y: &mut [f32], a: f32, x: &[E]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = a.mul_add(x.load(), *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest distance in units of the last place of the exact value.
    fn worst(range: (f32, f32), f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let n = 400_000;
        (0..=n)
            .map(|i| range.0 + (range.1 - range.0) * (i as f32 / n as f32))
            .map(|x| {
                let e = exact(f64::from(x));
                let ulp = f64::from(f32::from_bits((e as f32).abs().to_bits() + 1) - (e as f32).abs());
                (f64::from(f(x)) - e).abs() / ulp
            })
            .fold(0.0, f64::max)
    }

    /// erf by its series, in f64: accurate to 1e-14 for |x| <= 4.
    fn erf64(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn errors_stay_within_the_documented_bounds() {
        let exp = worst((-87.0, 0.0), exp_nonpositive, f64::exp);
        assert!(exp <= 2.0, "exp {exp}");
        let t = worst((-9.0, 9.0), tanh, f64::tanh);
        assert!(t <= 3.0, "tanh {t}");
        let e = worst((-3.0, 3.0), erf, erf64);
        assert!(e <= 3.0, "erf {e}");
        let l = worst((0.0, 1.0), ln_1p_fraction, f64::ln_1p);
        assert!(l <= 2.0, "ln_1p {l}");
        let s = worst((-80.0, 30.0), sigmoid, |x| 1.0 / (1.0 + (-x).exp()));
        assert!(s <= 3.0, "sigmoid {s}");
    }

    #[test]
    fn edges_are_exact_and_nan_survives() {
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(tanh(100.0), 1.0);
        assert_eq!(erf(-100.0), -1.0);
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        for f in [exp_nonpositive, tanh, erf, sigmoid] {
            assert!(f(f32::NAN).is_nan());
        }
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn sums_reach_the_last_odd_element() {
        for n in [0, 1, 31, 32, 33, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let expected = (n * n - n) as f32 / 2.0;
            assert_eq!(sum([&x], |[x]| x), expected, "n {n}");
            assert_eq!(dot(&x, &vec![1.0; n]), expected, "n {n}");
        }
    }
}
