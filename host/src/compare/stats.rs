//! The statistics that a comparison uses.

use serde::Serialize;

/// Repeated measurements of one number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// The median; for an even count, the mean of the two middle ones.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// All values, in the order they were measured.
    pub all: Vec<f64>,
}

impl Spread {
    /// Computes the spread of the measurements; `None` if there are none.
    pub fn of(all: Vec<f64>) -> Option<Spread> {
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max, all })
    }
}

/// The difference of two numbers relative to the larger; 0 for equal numbers and for two NaNs, infinite if
/// otherwise one is not finite.
pub fn relative(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let difference = (a - b).abs() / a.abs().max(b.abs());
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// The difference of two losses: relative if one of them is above 1, else absolute. The parts of a loss may cancel, as those of
/// policy gradients do at the first step, and it is then known only up to the rounding of its parts.
pub fn of_losses(a: f64, b: f64) -> f64 {
    match relative(a, b) {
        infinite if infinite.is_infinite() => infinite,
        relative => relative * a.abs().max(b.abs()).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a median of unsorted numbers, one that returns a neighbour of the middle, and a spread of no values.
    #[test]
    fn the_median_is_the_middle() {
        let of = |all: &[f64]| Spread::of(all.to_vec()).map(|s| (s.median, s.min, s.max));
        assert_eq!(of(&[5.0, 1.0, 3.0]), Some((3.0, 1.0, 5.0)));
        assert_eq!(of(&[4.0, 1.0, 2.0, 10.0]), Some((3.0, 1.0, 10.0)));
        assert_eq!(of(&[]), None);
    }

    /// Catches a NaN that counts as agreement, and a division by zero for equal zeros.
    #[test]
    fn a_number_and_nan_differ_infinitely() {
        assert_eq!(relative(0.0, 0.0), 0.0);
        assert_eq!(relative(2.0, 1.0), 0.5);
        assert_eq!(relative(1.0, f64::NAN), f64::INFINITY);
        assert_eq!(relative(f64::INFINITY, 1.0), f64::INFINITY);
        assert_eq!(relative(f64::NAN, f64::NAN), 0.0);
        assert_eq!((of_losses(4.0, 2.0), of_losses(1e-12, -3e-12)), (0.5, 4e-12));
        assert_eq!((of_losses(f64::NAN, 1e-12), of_losses(0.0, 0.0)), (f64::INFINITY, 0.0));
    }
}
