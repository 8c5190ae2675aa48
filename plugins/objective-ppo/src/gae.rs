//! Generalised advantage estimation, and how well a critic predicts. Both use supervised tokens only.

use std::ops::Range;

use plugin_api::groups::Moments;

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

/// `1 - var(error) / var(target)` over the supervised tokens: 1 if the error is constant, 0 for a constant prediction and for
/// targets that do not vary.
pub fn explained_variance(error: &[f64], target: &[f64], mask: &[f64]) -> f64 {
    let of = Moments::of(target, mask).variance;
    if of > 0.0 { 1.0 - Moments::of(error, mask).variance / of } else { 0.0 }
}
