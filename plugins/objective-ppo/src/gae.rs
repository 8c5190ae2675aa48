//! Advantages: generalised estimation, and whitening over a rollout. Both use supervised tokens only.

use std::ops::Range;

/// Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, equation 16) of one sequence, computed backwards:
///
/// ```text
/// delta[t]     = reward[t] + gamma value[t + 1] - value[t]
/// advantage[t] = delta[t] + gamma lambda advantage[t + 1]
/// ```
///
/// where t + 1 is the next supervised token; after the last one `value` is `after` (0 if the answer has ended) and `advantage` 0.
/// `reward`, `value` and `mask` are `[N]`; writes `advantage[N]` within `tokens` and leaves masked tokens unchanged.
pub fn gae(
    [gamma, lambda]: [f64; 2],
    [reward, value, mask]: [&[f64]; 3],
    after: f64,
    tokens: Range<usize>,
    advantage: &mut [f64],
) {
    let (mut next_value, mut next_advantage) = (after, 0.0);
    for t in tokens.rev().filter(|t| mask[*t] == 1.0) {
        let delta = reward[t] + gamma * next_value - value[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = value[t];
        advantage[t] = next_advantage;
    }
}

/// Scales the supervised `values` to variance 1, and to mean 0 unless the mean is kept: `(x - mean) / sqrt(variance + 1e-8)`. The
/// variance is the sample's, with Bessel's correction; fewer than two tokens have none, so that a single one becomes 0 (or its
/// mean). As TRL's `masked_whiten`; torchtune's `whiten` adds the mean back when it claims to shift it.
pub fn whiten(values: &mut [f64], mask: &[f64], keep_mean: bool) {
    let moments = Moments::of(values, mask);
    let bessel = moments.count / (moments.count - 1.0).max(1.0);
    let scale = (moments.variance * bessel + 1e-8).sqrt().recip();
    let shift = if keep_mean { moments.mean } else { 0.0 };
    for (x, _) in values.iter_mut().zip(mask).filter(|(_, m)| **m == 1.0) {
        *x = (*x - moments.mean) * scale + shift;
    }
}

/// `1 - var(error) / var(target)` over the supervised tokens: 1 if the error is constant, 0 for a constant prediction and for
/// targets that do not vary.
pub fn explained_variance(error: &[f64], target: &[f64], mask: &[f64]) -> f64 {
    let of = Moments::of(target, mask).variance;
    if of > 0.0 { 1.0 - Moments::of(error, mask).variance / of } else { 0.0 }
}

/// Moments of the supervised tokens; 0 if there are none.
struct Moments {
    count: f64,
    mean: f64,
    /// Mean squared distance from the mean.
    variance: f64,
}

impl Moments {
    fn of(values: &[f64], mask: &[f64]) -> Self {
        let supervised = || values.iter().zip(mask).filter(|(_, m)| **m == 1.0).map(|(x, _)| *x);
        let count = supervised().count() as f64;
        let divisor = count.max(1.0);
        let mean = supervised().sum::<f64>() / divisor;
        let variance = supervised().map(|x| (x - mean).powi(2)).sum::<f64>() / divisor;
        Self { count, mean, variance }
    }
}
