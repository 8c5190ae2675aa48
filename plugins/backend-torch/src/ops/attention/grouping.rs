//! Which sequences are padded to one length and computed together.

/// Limits of a batch, in scores.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Query heads, for each of which every pair of tokens has a score.
    pub heads: i64,
    /// Maximum number of scores.
    pub most: i64,
    /// Up to this many scores, a batch may consist of padding to any degree: such a batch takes no longer than its launches.
    pub free: i64,
}

/// Sequences by index.
#[derive(Debug, Default, PartialEq)]
pub struct Groups {
    /// Sequences that are padded to the length of each group's first one, which is the longest.
    pub padded: Vec<Vec<usize>>,
    /// Sequences whose own scores exceed the limit.
    pub alone: Vec<usize>,
}

/// Groups sequences of positive lengths, the longest first. Beyond the free size, at least half of a group's scores are real: so
/// the first lengths of such groups fall at least by a factor of sqrt(2), unless a group is full, and the number of groups does not
/// grow with the number of sequences.
pub fn group(lengths: &[i64], limits: Limits) -> Groups {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(lengths[at]));
    let mut groups = Groups::default();
    // Real scores per head of the last group.
    let mut real = 0;
    for at in order {
        let square = lengths[at].saturating_mul(lengths[at]);
        if square.saturating_mul(limits.heads) > limits.most {
            groups.alone.push(at);
            continue;
        }
        let room = groups.padded.last().is_some_and(|group| {
            let longest = lengths[group[0]];
            let padded = (group.len() as i64 + 1) * longest * longest;
            let scores = padded * limits.heads;
            scores <= limits.most && (scores <= limits.free || padded <= 2 * (real + square))
        });
        match groups.padded.last_mut().filter(|_| room) {
            Some(group) => {
                group.push(at);
                real += square;
            }
            None => {
                groups.padded.push(vec![at]);
                real = square;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { heads: 12, most: 1 << 26, free: 1 << 20 };

    fn lengths(count: usize, longest: usize) -> Vec<i64> {
        (0..count).map(|i| 1 + (i * 7919 % longest) as i64).collect()
    }

    /// Catches a sequence that is lost or computed twice, a group beyond the limit or with more padding than allowed, and an order
    /// in which the first of a group is not its longest.
    #[test]
    fn every_sequence_is_in_one_group_within_the_limits() {
        for (count, longest) in [(0, 1), (1, 1), (500, 40), (300, 1024), (40, 4096), (3, 9000)] {
            let lengths = lengths(count, longest);
            let groups = group(&lengths, LIMITS);
            let mut seen: Vec<usize> = groups.padded.iter().flatten().chain(&groups.alone).copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
            for group in &groups.padded {
                let square = |at: &usize| lengths[*at] * lengths[*at];
                let longest = group.iter().map(|at| lengths[*at]).max().unwrap();
                assert_eq!(longest, lengths[group[0]]);
                let (padded, real) = (group.len() as i64 * longest * longest, group.iter().map(square).sum::<i64>());
                assert!(padded * LIMITS.heads <= LIMITS.most);
                assert!(padded * LIMITS.heads <= LIMITS.free || padded <= 2 * real, "{padded} of {real}");
            }
            for at in &groups.alone {
                assert!(lengths[*at] * lengths[*at] * LIMITS.heads > LIMITS.most);
            }
        }
    }

    /// Catches groups whose number grows with the number of sequences.
    #[test]
    fn the_number_of_groups_does_not_grow_with_the_number_of_sequences() {
        let groups = |count| group(&lengths(count, 64), LIMITS).padded.len();
        let (few, many) = (groups(20), groups(1000));
        assert!(few <= 2 && many <= 8, "{few} and {many}");
        // Each of these lengths is computed in one product.
        assert_eq!(group(&[64; 1000], LIMITS).padded.len(), 1);
    }
}
