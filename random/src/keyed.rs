//! Streams of random numbers, each decided by a list of integers.
//!
//! A key is folded in with SplitMix64's output function, one integer at a time, so that streams with different keys are unrelated.
//! Integers below a bound are drawn without bias (Lemire, "Fast random integer generation in an interval", 2019).

use crate::split_mix::{GOLDEN_GAMMA, mix, step};

/// A stream of random numbers that depends only on its key.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream of `key`. Order matters: `[1, 2]` and `[2, 1]` are different streams.
    pub fn new(key: &[u64]) -> Rng {
        let fold =
            |state: u64, &part: &u64| mix(state ^ mix(part.wrapping_add(GOLDEN_GAMMA))).wrapping_add(GOLDEN_GAMMA);
        Rng { state: key.iter().fold(GOLDEN_GAMMA, fold) }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        step(&mut self.state)
    }

    /// Uniform in `0..bound`, without bias; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        // The low half decides whether this draw is in the part of the range that would favour small results.
        let reject_below = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= reject_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// Uniform in the closed range `low..=high`; `low` when the range is empty.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True with probability `share`, to one part in 2^53.
    pub fn chance(&mut self, share: f64) -> bool {
        const STEPS: u64 = 1 << 53;
        (self.below(STEPS) as f64) < share * STEPS as f64
    }

    /// One of `choices`. The array's length is part of its type, so it is never empty.
    pub fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        const { assert!(N > 0) }
        choices[self.below(N as u64) as usize]
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_splitmix64_bit_for_bit() {
        // SplitMix64's published stream for the state 1234567; catches a wrong constant or shift.
        let mut rng = Rng { state: 1_234_567 };
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
        ];
        assert_eq!(std::array::from_fn(|_| rng.next_u64()), expected);
    }

    #[test]
    fn keyed_streams_match_recorded_bits() {
        // Fixed numbers, computed before this crate existed. Catches another folding of keys, which moves every data order.
        let first = |key: &[u64]| Rng::new(key).next_u64();
        assert_eq!(first(&[]), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(first(&[0]), 0x7415_2ffa_fb44_a602);
        assert_eq!(first(&[1, 2]), 0xcfbf_573d_37e6_c924);
        assert_eq!(first(&[u64::MAX, 7, 3]), 0xa145_7c70_21d0_d2f6);
    }

    #[test]
    fn keys_make_unrelated_streams() {
        // Catches folding a key by addition or exclusive or, where [1, 2] and [2, 1] collide.
        let first = |key: &[u64]| Rng::new(key).next_u64();
        let streams = [first(&[1, 2]), first(&[2, 1]), first(&[3]), first(&[3, 0]), first(&[0]), first(&[])];
        for (i, a) in streams.iter().enumerate() {
            assert!(streams.iter().skip(i + 1).all(|b| a != b), "stream {i} collides");
        }
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = Rng::new(&[5]);
        let mut seen = [0_u32; 7];
        for _ in 0..7000 {
            seen[rng.below(7) as usize] += 1;
        }
        // Standard deviation is 29: 150 is five of them; catches a bound off by one.
        assert!(seen.iter().all(|&count| count.abs_diff(1000) < 150), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.within(4, 4), 4);
    }

    #[test]
    fn shuffle_permutes_without_loss() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(&[9]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
