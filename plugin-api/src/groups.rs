//! Statistics of groups and of supervised tokens, for `prepare`: plain numbers, without gradients.
//!
//! | function | from, to | computes |
//! |---|---|---|
//! | [`group_mean`] | `[S]`, `[S]` | mean of the group's values |
//! | [`group_std`] | `[S]`, `[S]` | their unbiased standard deviation |
//! | [`leave_one_out`] | `[S]`, `[S]` | mean of the other values of the group |
//! | [`sequence_length`] | `[N]`, `[S]` | supervised tokens of a sequence |
//! | [`sequence_sum`], [`sequence_mean`] | `[N]`, `[S]` | sum and mean over a sequence's supervised tokens |
//! | [`whiten`] | `[N]` in place | scales the supervised tokens to variance 1 |
//! | [`tie_break`] | `[N]`, to `[S]` | a number of a sequence's tokens alone, to order equal ones |
//!
//! A loss that needs a gradient writes them on its [tape](crate::tape): `x.group_mean(group).group_broadcast(group)` for
//! [`group_mean`], `x.seq_sum(mask)` and `x.seq_mean(mask)` for the sums and means of sequences.
//!
//! Groups are told apart by their number; their members need not be neighbours. Only tokens whose mask is 1 are supervised; the
//! others may be NaN. All sums run in the order of the arrays. If two arrays differ in length, the rest of the longer one is not
//! read, and the host then refuses the result because of its length.
//!
//! Advantages of a group, with and without the standard deviation, as GRPO computes them:
//!
//! ```
//! use plugin_api::groups::{group_mean, group_std, leave_one_out};
//!
//! // Two prompts; three answers to the first one, two to the second one.
//! let (reward, group) = ([1.0, 0.0, 2.0, 0.5, 0.5], [7.0, 7.0, 7.0, 8.0, 8.0]);
//! let (mean, std) = (group_mean(&reward, &group), group_std(&reward, &group));
//! let advantage: Vec<f64> =
//!     reward.iter().zip(&mean).zip(&std).map(|((reward, mean), std)| (reward - mean) / (std + 1e-4)).collect();
//! assert_eq!((mean, std), (vec![1.0, 1.0, 1.0, 0.5, 0.5], vec![1.0, 1.0, 1.0, 0.0, 0.0]));
//! assert!((advantage[2] - 1.0 / 1.0001).abs() < 1e-12 && advantage[3] == 0.0);
//! // RLOO subtracts the mean of the others.
//! assert_eq!(leave_one_out(&reward, &group), [1.0, 1.5, 0.5, 0.5, 0.5]);
//! ```

use std::collections::BTreeMap;

/// Per sequence, the mean of its group: `sum over the group of values / n`. Equal values give exactly their value.
///
/// ```
/// assert_eq!(plugin_api::groups::group_mean(&[1.0, 4.0, 3.0], &[0.0, 1.0, 0.0]), [2.0, 4.0, 2.0]);
/// ```
pub fn group_mean(values: &[f64], group: &[f64]) -> Vec<f64> {
    per_member(values, group, |members, _| members.mean())
}

/// Per sequence, the standard deviation of its group: `sqrt(sum of (value - mean)^2 / (n - 1))`, with Bessel's correction (ddof
/// 1). 0 for a group of one, and exactly 0 for equal values.
///
/// ```
/// let std = plugin_api::groups::group_std(&[1.0, 4.0, 3.0], &[0.0, 1.0, 0.0]);
/// assert_eq!(std, [2.0_f64.sqrt(), 0.0, 2.0_f64.sqrt()]);
/// ```
pub fn group_std(values: &[f64], group: &[f64]) -> Vec<f64> {
    per_member(values, group, |members, _| {
        let mean = members.mean();
        let squares: f64 = members.values.iter().map(|x| (x - mean).powi(2)).sum();
        (squares / (members.values.len() as f64 - 1.0).max(1.0)).sqrt()
    })
}

/// Per sequence, the mean of the *other* members of its group: `(sum over the group of values - value) / (n - 1)`, the baseline
/// of RLOO (Kool et al. 2019). 0 for a group of one. Equal values give exactly their value.
///
/// ```
/// assert_eq!(plugin_api::groups::leave_one_out(&[1.0, 4.0, 3.0], &[0.0, 1.0, 0.0]), [3.0, 0.0, 1.0]);
/// ```
pub fn leave_one_out(values: &[f64], group: &[f64]) -> Vec<f64> {
    per_member(values, group, |members, own| match members.values.len() {
        0 | 1 => 0.0,
        n => members.first + (members.distance - (own - members.first)) / (n as f64 - 1.0),
    })
}

/// The values of a group.
struct Members {
    /// In the order of the sequences.
    values: Vec<f64>,
    /// The first one. Distances from it are added up instead of the values, so that equal values have exactly their value as
    /// mean: 0.1 + 0.1 + 0.1 is not three times 0.1.
    first: f64,
    /// Sum of the distances from the first one.
    distance: f64,
}

impl Members {
    fn mean(&self) -> f64 {
        self.first + self.distance / self.values.len() as f64
    }
}

/// `of` each value and the values of its group.
fn per_member(values: &[f64], group: &[f64], of: impl Fn(&Members, f64) -> f64) -> Vec<f64> {
    let mut groups: BTreeMap<u64, Members> = BTreeMap::new();
    // 0 and -0 are one group.
    let key = |group: f64| (group + 0.0).to_bits();
    for (value, group) in values.iter().zip(group) {
        let new = || Members { values: Vec::new(), first: *value, distance: 0.0 };
        let members = groups.entry(key(*group)).or_insert_with(new);
        members.values.push(*value);
        members.distance += value - members.first;
    }
    values.iter().zip(group).map(|(value, group)| groups.get(&key(*group)).map_or(0.0, |own| of(own, *value))).collect()
}

/// Per sequence, the number of its supervised tokens. `offsets` are the batch's
/// ([`Batch::offsets`](crate::batch::Batch::offsets)).
///
/// ```
/// assert_eq!(plugin_api::groups::sequence_length(&[1.0, 0.0, 1.0, 0.0], &[0, 3, 4]), [2.0, 0.0]);
/// ```
pub fn sequence_length(mask: &[f64], offsets: &[usize]) -> Vec<f64> {
    let ones = vec![1.0; mask.len()];
    sequence_sum(&ones, mask, offsets)
}

/// Per sequence, the sum of `values` over its supervised tokens; 0 if it has none. Otherwise as [`sequence_mean`].
pub fn sequence_sum(values: &[f64], mask: &[f64], offsets: &[usize]) -> Vec<f64> {
    per_sequence(values, mask, offsets).map(|(sum, _)| sum).collect()
}

/// Per sequence, the mean of `values` over its supervised tokens; 0 if it has none.
///
/// ```
/// let (values, mask) = ([1.0, f64::NAN, 3.0, 8.0], [1.0, 0.0, 1.0, 0.0]);
/// assert_eq!(plugin_api::groups::sequence_mean(&values, &mask, &[0, 3, 4]), [2.0, 0.0]);
/// ```
pub fn sequence_mean(values: &[f64], mask: &[f64], offsets: &[usize]) -> Vec<f64> {
    per_sequence(values, mask, offsets).map(|(sum, count)| sum / count.max(1.0)).collect()
}

/// Sum and number of each sequence's supervised values.
fn per_sequence(values: &[f64], mask: &[f64], offsets: &[usize]) -> impl Iterator<Item = (f64, f64)> {
    offsets.windows(2).map(move |ends| {
        let tokens = values.iter().zip(mask).take(ends[1]).skip(ends[0]);
        let add = |(sum, count): (f64, f64), x: &f64| (sum + x, count + 1.0);
        tokens.filter(|(_, m)| **m == 1.0).map(|(x, _)| x).fold((0.0, 0.0), add)
    })
}

/// Per sequence, a number that depends on its tokens alone: the 64-bit FNV-1a hash of the ids in `target`, eight bytes each, the
/// least significant first. It orders answers with equal rewards without a preference, and whatever the order of the answers is.
/// Equal answers have the same number; different ones almost always have different numbers.
///
/// ```
/// let lots = plugin_api::groups::tie_break(&[0.0, 2.0, 2.0, 0.0, 0.0, 2.0], &[0, 2, 4, 6]);
/// assert!(lots[0] == lots[2] && lots[0] != lots[1]);
/// ```
pub fn tie_break(target: &[f64], offsets: &[usize]) -> Vec<u64> {
    let byte = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let id = |hash: u64, id: &f64| (*id as u64).to_le_bytes().into_iter().fold(hash, byte);
    let hash = |ends: &[usize]| target.iter().take(ends[1]).skip(ends[0]).fold(0xcbf2_9ce4_8422_2325, id);
    offsets.windows(2).map(hash).collect()
}

/// Scales the supervised `values` to variance 1, and to mean 0 unless the mean is kept: `(x - mean) / sqrt(variance + 1e-8)`,
/// plus `mean` if it is kept. The variance is the sample's, with Bessel's correction; fewer than two tokens have none, so that a
/// single one becomes 0 (or its mean). As TRL's `masked_whiten`; torchtune's `whiten` adds the mean back when it claims to shift
/// it.
///
/// ```
/// let mut advantage = [1.0, f64::NAN, 3.0];
/// plugin_api::groups::whiten(&mut advantage, &[1.0, 0.0, 1.0], false);
/// assert!((advantage[0] + 0.5_f64.sqrt()).abs() < 1e-8 && (advantage[2] - 0.5_f64.sqrt()).abs() < 1e-8);
/// let mut reward = [1.0, 3.0];
/// plugin_api::groups::whiten(&mut reward, &[1.0, 1.0], true);
/// assert!((reward[0] - (2.0 - 0.5_f64.sqrt())).abs() < 1e-8);
/// ```
pub fn whiten(values: &mut [f64], mask: &[f64], keep_mean: bool) {
    let moments = Moments::of(values, mask);
    let bessel = moments.count / (moments.count - 1.0).max(1.0);
    let scale = (moments.variance * bessel + 1e-8).sqrt().recip();
    let shift = if keep_mean { moments.mean } else { 0.0 };
    for (x, _) in values.iter_mut().zip(mask).filter(|(_, m)| **m == 1.0) {
        *x = (*x - moments.mean) * scale + shift;
    }
}

/// Number, mean and variance of the supervised values; 0 if there are none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// How many there are.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Mean squared distance from the mean: without Bessel's correction.
    pub variance: f64,
}

impl Moments {
    /// The moments of the `values` whose mask is 1.
    pub fn of(values: &[f64], mask: &[f64]) -> Self {
        let supervised = || values.iter().zip(mask).filter(|(_, m)| **m == 1.0).map(|(x, _)| *x);
        let count = supervised().count() as f64;
        let divisor = count.max(1.0);
        let mean = supervised().sum::<f64>() / divisor;
        let variance = supervised().map(|x| (x - mean).powi(2)).sum::<f64>() / divisor;
        Self { count, mean, variance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rewards of two groups that are not neighbours, and of one alone.
    const REWARD: [f64; 6] = [1.0, 10.0, 2.0, 5.0, 6.0, 20.0];
    const GROUP: [f64; 6] = [3.0, -1.0, 3.0, 0.5, 3.0, -1.0];

    /// Catches a standard deviation that divides by n, and a group that is read as a run of neighbours. By hand: the group 3 has
    /// 1, 2, 6 with mean 3 and squares 4 + 1 + 9 = 14, so that the variance is 7; the group -1 has 10 and 20 with variance 50.
    #[test]
    fn means_and_deviations_of_groups_are_those_computed_by_hand() {
        assert_eq!(group_mean(&REWARD, &GROUP), [3.0, 15.0, 3.0, 5.0, 3.0, 15.0]);
        let (three, two) = (7.0_f64.sqrt(), 50.0_f64.sqrt());
        assert_eq!(group_std(&REWARD, &GROUP), [three, two, three, 0.0, three, two]);
    }

    /// Catches a baseline that includes the value itself. By hand: (2 + 6) / 2, 20, (1 + 6) / 2, alone, (1 + 2) / 2, 10.
    #[test]
    fn leaving_one_out_leaves_out_the_value_itself() {
        assert_eq!(leave_one_out(&REWARD, &GROUP), [4.0, 20.0, 3.5, 0.0, 1.5, 10.0]);
    }

    /// Catches rounding that gives answers with equal rewards an advantage: divided by a deviation of 1e-17, it would be large.
    #[test]
    fn equal_values_have_exactly_their_value_as_mean_and_no_deviation() {
        for n in 2..20 {
            let (values, group) = (vec![0.1; n], vec![0.0; n]);
            assert_eq!(group_mean(&values, &group), values, "{n}");
            assert_eq!(group_std(&values, &group), vec![0.0; n], "{n}");
            assert_eq!(leave_one_out(&values, &group), values, "{n}");
        }
        assert_eq!(group_mean(&[1.0, 3.0], &[0.0, -0.0]), [2.0, 2.0]);
        assert_eq!(group_mean(&[], &[]), [0.0; 0]);
    }

    /// Catches tokens behind the mask that are counted, and sequences without supervised tokens that become NaN.
    #[test]
    fn sequences_are_measured_over_their_supervised_tokens() {
        let values = [1.0, f64::NAN, 4.0, 7.0, f64::INFINITY];
        let (mask, offsets) = ([1.0, 0.0, 1.0, 1.0, 0.0], [0, 3, 4, 4, 5]);
        assert_eq!(sequence_length(&mask, &offsets), [2.0, 1.0, 0.0, 0.0]);
        assert_eq!(sequence_sum(&values, &mask, &offsets), [5.0, 7.0, 0.0, 0.0]);
        assert_eq!(sequence_mean(&values, &mask, &offsets), [2.5, 7.0, 0.0, 0.0]);
    }

    /// Catches a variance that divides by n, a mean that is added back in the wrong case, and a masked NaN in the mean. By hand:
    /// 1, 2, 6 have mean 3 and variance 7.
    #[test]
    fn whitening_scales_the_supervised_values() {
        let (values, mask) = ([1.0, f64::NAN, 2.0, 6.0], [1.0, 0.0, 1.0, 1.0]);
        for (keep, shift) in [(false, 0.0), (true, 3.0)] {
            let mut own = values;
            whiten(&mut own, &mask, keep);
            let scale = (7.0_f64 + 1e-8).sqrt();
            for (x, expected) in [(own[0], -2.0), (own[2], -1.0), (own[3], 3.0)] {
                assert!((x - (expected / scale + shift)).abs() < 1e-15, "{own:?}");
            }
            assert!(own[1].is_nan());
        }
        let mut single = [5.0];
        whiten(&mut single, &[1.0], false);
        assert_eq!(single, [0.0]);
        whiten(&mut [], &[], false);
    }
}
