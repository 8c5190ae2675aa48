//! SplitMix64: a state of 64 bits, one addition and one mixing function per output.

use std::f64::consts::TAU;

/// What each step adds to the state: the odd integer closest to 2^64 divided by the golden ratio.
pub const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: a bijection of 64-bit integers in which every input bit flips about half of the output bits.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Advances `state` by one step and returns 64 random bits.
pub fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(GOLDEN_GAMMA);
    mix(*state)
}

/// The generator that starts from one seed, which is its first state.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        step(&mut self.0)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform between two numbers.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// An integer in `0..n`; 0 for n = 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator's published first outputs for seed 1234567. Catches a wrong constant or shift.
    #[test]
    fn outputs_are_splitmix64s() {
        let mut rng = SplitMix64::new(1234567);
        assert_eq!(rng.bits(), 6457827717110365317);
        assert_eq!(rng.bits(), 3203168211198807973);
        assert_eq!(rng.bits(), 9817491932198370423);
        assert_eq!(rng.bits(), 4593380528125082431);
        assert_eq!(rng.bits(), 16408922859458223821);
    }

    /// The first outputs for seed 0, as Vigna's `splitmix64.c` and Java's `SplittableRandom` compute them. Catches a state that is
    /// mixed before the addition: its first output for seed 0 is 0.
    #[test]
    fn outputs_of_seed_zero_are_splitmix64s() {
        let mut rng = SplitMix64::new(0);
        assert_eq!(rng.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(rng.bits(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(rng.bits(), 0x06c4_5d18_8009_454f);
        assert_eq!(rng.bits(), 0xf88b_b8a8_724c_81ec);
    }

    /// Catches a mixing function that differs from the generator's, and one that is not a bijection at its fixed point 0.
    #[test]
    fn mix_is_the_output_function_of_the_generator() {
        assert_eq!(mix(0), 0);
        assert_eq!(mix(GOLDEN_GAMMA), 0xe220_a839_7b1d_cdaf);
        let mut state = 1234567;
        assert_eq!(step(&mut state), 6457827717110365317);
        assert_eq!(state, 1234567_u64.wrapping_add(GOLDEN_GAMMA));
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut rng = SplitMix64::new(1);
        let draws: Vec<f64> = (0..20_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
