//! The mean over seeds and its confidence interval.

use std::f64::consts::{FRAC_PI_2, PI};

use serde::Serialize;

/// The probability that the interval contains the mean.
pub const CONFIDENCE: f64 = 0.95;

/// The mean of independent measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// How many measurements.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Half the width of the mean's 95% confidence interval by Student's t; `None` for one measurement.
    pub half_width: Option<f64>,
}

impl Estimate {
    /// The estimate from measurements; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        let n = values.len();
        let count = n as f64;
        let mean = values.iter().sum::<f64>() / count;
        let half_width = (n > 1).then(|| {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
            t_quantile(0.5 + CONFIDENCE / 2.0, n - 1) * (variance / count).sqrt()
        });
        (n > 0).then_some(Estimate { n, mean, half_width })
    }

    /// The least and the greatest value of the interval; the mean itself for one measurement.
    pub fn interval(&self) -> (f64, f64) {
        let half = self.half_width.unwrap_or(0.0);
        (self.mean - half, self.mean + half)
    }
}

/// The quantile at `probability` (from 0.5 to below 1) of Student's t with `freedom` degrees of freedom (from 1): bisection of the
/// distribution function.
pub fn t_quantile(probability: f64, freedom: usize) -> f64 {
    // In the angle atan(t / sqrt(freedom)), which is bounded.
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if 0.5 + 0.5 * within(middle, freedom) < probability { low = middle } else { high = middle }
    }
    (0.5 * (low + high)).tan() * (freedom as f64).sqrt()
}

/// The probability that |t| is at most `tan(angle) * sqrt(freedom)`: Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn within(angle: f64, freedom: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let square = cosine * cosine;
    let odd = freedom % 2 == 1;
    let first = if odd { 3 } else { 2 };
    // 1 + 1/2 cos^2 + (1 * 3)/(2 * 4) cos^4 + ..., for an odd number with the factors 2/3, 4/5 and so on.
    let (mut term, mut sum) = (1.0, if freedom > 1 { 1.0 } else { 0.0 });
    let mut k = first;
    while k + 2 <= freedom {
        term *= square * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    if odd { 2.0 / PI * (angle + sine * cosine * sum) } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a quantile of the normal distribution, a one-sided one, and a wrong number of degrees of freedom. The values are those
    /// of the NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, with three decimals.
    #[test]
    fn quantiles_are_those_of_published_tables() {
        let table = [
            (0.975, 1, 12.706),
            (0.975, 2, 4.303),
            (0.975, 3, 3.182),
            (0.975, 4, 2.776),
            (0.975, 5, 2.571),
            (0.975, 9, 2.262),
            (0.975, 10, 2.228),
            (0.975, 29, 2.045),
            (0.975, 30, 2.042),
            (0.975, 100, 1.984),
            (0.95, 1, 6.314),
            (0.95, 4, 2.132),
            (0.99, 2, 6.965),
            (0.995, 7, 3.499),
        ];
        for (probability, freedom, expected) in table {
            let found = t_quantile(probability, freedom);
            assert!((found - expected).abs() < 6e-4, "{probability} {freedom}: {found}, not {expected}");
        }
    }

    /// Catches a deviation of the population instead of the sample, one that is not divided by the root of n, and an interval for one
    /// measurement.
    #[test]
    fn an_interval_is_that_of_the_mean() {
        let three = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((three.n, three.mean), (3, 2.0));
        // t(0.975; 2) * 1 / sqrt(3)
        assert!((three.half_width.unwrap() - 4.302_652_7 / 3.0_f64.sqrt()).abs() < 1e-6, "{three:?}");
        assert_eq!(Estimate::of(&[5.0]), Some(Estimate { n: 1, mean: 5.0, half_width: None }));
        assert_eq!(Estimate::of(&[]), None);
    }
}
