//! Standard errors of figures.

/// Returns the mean of `values` and its standard error, the sample's standard deviation divided by the root of their number;
/// `None` for fewer than two values.
pub fn mean(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    if values.len() < 2 {
        return (mean, None);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, Some((squares / (count - 1.0) / count).sqrt()))
}

/// Returns the quotient of sums of `(sum, weight)`, such as nats and tokens of documents, and its standard error if the documents
/// are a sample: `sqrt(n / (n - 1) * sum((sum_i - quotient * weight_i)^2)) / sum(weight_i)`, the linearised error of a ratio
/// estimator (Cochran, Sampling Techniques, chapter 6). `None` for fewer than two documents.
pub fn ratio(parts: &[(f64, f64)]) -> (f64, Option<f64>) {
    let weight: f64 = parts.iter().map(|(_, weight)| weight).sum();
    let quotient = parts.iter().map(|(sum, _)| sum).sum::<f64>() / weight.max(f64::MIN_POSITIVE);
    let count = parts.len() as f64;
    if parts.len() < 2 || weight <= 0.0 {
        return (quotient, None);
    }
    let squares: f64 = parts.iter().map(|(sum, weight)| (sum - quotient * weight).powi(2)).sum();
    (quotient, Some((count / (count - 1.0) * squares).sqrt() / weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a standard deviation of the population, one that is not divided by the root of the number, and an error of one
    /// value that is 0 instead of unknown.
    #[test]
    fn a_mean_has_the_error_of_its_sample() {
        let (average, error) = mean(&[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(average, 0.5);
        // p (1 - p) / (n - 1)
        assert!((error.unwrap() - (0.25_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(mean(&[2.0]), (2.0, None));
    }

    /// Catches a mean of means, and an error that differs from the mean's if all weights are equal.
    #[test]
    fn a_ratio_is_that_of_the_sums() {
        let (loss, _) = ratio(&[(2.0, 1.0), (1.0, 3.0)]);
        assert_eq!(loss, 0.75);
        let values = [1.0, 4.0, 2.5];
        let (_, of_ratio) = ratio(&values.map(|value| (value, 1.0)));
        assert!((of_ratio.unwrap() - mean(&values).1.unwrap()).abs() < 1e-15);
        assert_eq!(ratio(&[(2.0, 4.0)]), (0.5, None));
    }
}
