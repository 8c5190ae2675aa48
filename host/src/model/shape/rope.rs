//! Rotary position embeddings: the frequencies of the pairs of a head, and their scaling to longer contexts.

/// The rotary positions of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Ropes {
    /// Those of all layers, or of the layers without a window.
    pub all: Rope,
    /// Those of the layers with a window, if they have their own.
    pub local: Option<Rope>,
    /// Whether each layer rotates queries and keys; empty if all do.
    pub rotated: Vec<bool>,
}

impl Ropes {
    /// The same in all layers.
    pub fn new(rope: Rope) -> Ropes {
        Ropes { all: rope, local: None, rotated: Vec::new() }
    }
}

/// The frequencies of a rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Which part of each head is rotated, from its first dimension on.
    pub share: f64,
    /// How they are scaled to a longer context.
    pub scaling: Scaling,
}

/// How frequencies are scaled.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// As they are.
    Unscaled,
    /// All are divided by a factor (position interpolation, Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// A sequence that is longer than the model's context length has a larger base. Shorter ones, which are all that a model accepts
    /// here, have the plain frequencies.
    Dynamic {
        /// The factor.
        factor: f64,
    },
    /// As in Llama 3.1: low frequencies are divided by a factor, high ones are kept, those between are interpolated.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Frequencies of fewer periods than this in the original context are divided.
        low: f64,
        /// Frequencies of more periods than this are kept.
        high: f64,
        /// The context length before scaling.
        original: u64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071).
    Yarn(Yarn),
    /// LongRoPE (Ding et al. 2024, arXiv 2402.13753).
    LongRope(LongRope),
}

/// YaRN: low frequencies are divided by a factor, high ones are kept, those between are interpolated by the pair's number; cosines and
/// sines are multiplied by a factor.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// The factor of the context length.
    pub factor: f64,
    /// The context length before scaling.
    pub original: u64,
    /// Factor of cosines and sines; absent: computed from the others.
    pub attention: Option<f64>,
    /// Frequencies of more periods than this in the original context are kept.
    pub fast: f64,
    /// Frequencies of fewer periods than this are divided.
    pub slow: f64,
    /// Numerator and denominator of the factor of cosines and sines, if both are given.
    pub mscale: Option<(f64, f64)>,
    /// Whether the numbers of the pairs between which frequencies are interpolated are rounded outwards.
    pub truncate: bool,
}

/// LongRoPE: each frequency has its own divisor, in sequences of at most the original length one of `short`. Longer sequences would
/// have `long`; they are not implemented, and the context is limited to the original length.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Divisors of the frequencies.
    pub short: Vec<f64>,
    /// Divisors in longer sequences; only saved.
    pub long: Vec<f64>,
    /// The factor of the context length; absent: `context / original`.
    pub factor: Option<f64>,
    /// Factor of cosines and sines; absent: computed from the others.
    pub attention: Option<f64>,
    /// The context length before scaling.
    pub original: u64,
    /// The context length that config.json gives.
    pub context: u64,
}

impl Rope {
    /// Unscaled frequencies of whole heads.
    pub fn new(theta: f64) -> Rope {
        Rope { theta, share: 1.0, scaling: Scaling::Unscaled }
    }

    /// How many dimensions of a head are rotated, before they are rounded up to pairs.
    fn rotated(&self, head_dim: u64) -> u64 {
        (head_dim as f64 * self.share) as u64
    }

    /// Returns the frequency of each rotated pair of a head of this width, in radians per position: `theta^(-2 i / rotated)`, scaled.
    pub fn frequencies(&self, head_dim: u64) -> Vec<f64> {
        let rotated = self.rotated(head_dim);
        let plain: Vec<f64> =
            (0..rotated.div_ceil(2)).map(|pair| self.theta.powf(-((2 * pair) as f64) / rotated as f64)).collect();
        match &self.scaling {
            Scaling::Unscaled | Scaling::Dynamic { .. } => plain,
            Scaling::Linear { factor } => plain.into_iter().map(|frequency| frequency / factor).collect(),
            Scaling::Llama3 { .. } => plain.into_iter().map(|frequency| self.llama3(frequency)).collect(),
            Scaling::Yarn(yarn) => yarn.scaled(&plain, self.theta, rotated),
            Scaling::LongRope(long) => plain.iter().zip(&long.short).map(|(plain, divisor)| plain / divisor).collect(),
        }
    }

    /// The factor of cosines and sines.
    pub fn amplitude(&self) -> f64 {
        match &self.scaling {
            Scaling::Yarn(yarn) => yarn.amplitude(),
            Scaling::LongRope(long) => long.amplitude(),
            _ => 1.0,
        }
    }

    fn llama3(&self, frequency: f64) -> f64 {
        let Scaling::Llama3 { factor, low, high, original } = self.scaling else { return frequency };
        let periods = original as f64 * frequency / std::f64::consts::TAU;
        let kept = ((periods - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - kept) * frequency / factor + kept * frequency
    }

    /// Checks the numbers for heads of this width.
    pub(super) fn check(&self, head_dim: u64) -> Result<(), String> {
        if !(self.theta > 1.0 && self.theta.is_finite()) {
            return Err(format!("rope_theta is {}, expected a number above 1", self.theta));
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Err(format!("the rotated part of a head is {}, expected a number above 0, at most 1", self.share));
        }
        let rotated = self.rotated(head_dim);
        if rotated == 0 || 2 * rotated.div_ceil(2) > head_dim {
            return Err(if self.share < 1.0 {
                format!("{} of a head of width {head_dim} holds no pair to rotate", self.share)
            } else {
                format!("head width {head_dim} is odd, and rotary embedding needs pairs")
            });
        }
        let factor = match &self.scaling {
            Scaling::Unscaled => 1.0,
            Scaling::Linear { factor } | Scaling::Dynamic { factor } | Scaling::Llama3 { factor, .. } => *factor,
            Scaling::Yarn(yarn) => yarn.factor,
            Scaling::LongRope(long) => long.factor.unwrap_or(1.0),
        };
        if !(factor >= 1.0 && factor.is_finite()) {
            return Err(format!("the factor of the rotary scaling is {factor}, expected a number from 1"));
        }
        match &self.scaling {
            Scaling::Llama3 { low, high, .. } if !(*low > 0.0 && high > low && high.is_finite()) => Err(format!(
                "low_freq_factor is {low} and high_freq_factor {high}, expected numbers above 0, the second one greater"
            )),
            Scaling::Yarn(yarn) => yarn.check(),
            Scaling::LongRope(long) => long.check(rotated.div_ceil(2)),
            _ => Ok(()),
        }
    }
}

impl Yarn {
    /// The number of the pair, not rounded, that turns this many times in the original context.
    fn pair(&self, turns: f64, theta: f64, rotated: u64) -> f64 {
        rotated as f64 * (self.original as f64 / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln())
    }

    fn scaled(&self, plain: &[f64], theta: f64, rotated: u64) -> Vec<f64> {
        let (mut first, mut last) = (self.pair(self.fast, theta, rotated), self.pair(self.slow, theta, rotated));
        if self.truncate {
            (first, last) = (first.floor(), last.ceil());
        }
        let (first, mut last) = (first.max(0.0), last.min(rotated as f64 - 1.0));
        if first == last {
            // As transformers does, so that the division below is defined.
            last += 0.001;
        }
        let scale = |(pair, frequency): (usize, &f64)| {
            let divided = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
            frequency / self.factor * divided + frequency * (1.0 - divided)
        };
        plain.iter().enumerate().map(scale).collect()
    }

    fn amplitude(&self) -> f64 {
        let of = |mscale: f64| if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 };
        let computed = || self.mscale.map_or_else(|| of(1.0), |(above, below)| of(above) / of(below));
        self.attention.unwrap_or_else(computed)
    }

    fn check(&self) -> Result<(), String> {
        let Yarn { fast, slow, .. } = self;
        if !(*slow > 0.0 && fast >= slow && fast.is_finite()) {
            return Err(format!(
                "beta_fast is {fast} and beta_slow {slow}, expected numbers above 0, the first one not smaller"
            ));
        }
        check_amplitude(self.amplitude())
    }
}

impl LongRope {
    fn amplitude(&self) -> f64 {
        let factor = self.factor.unwrap_or(self.context as f64 / self.original as f64);
        let computed = || if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (self.original as f64).ln()).sqrt() };
        self.attention.unwrap_or_else(computed)
    }

    fn check(&self, pairs: u64) -> Result<(), String> {
        for (name, divisors) in [("short_factor", &self.short), ("long_factor", &self.long)] {
            if divisors.len() as u64 != pairs {
                return Err(format!("{name} has {} numbers, expected {pairs}: one for each pair", divisors.len()));
            }
            if let Some(wrong) = divisors.iter().find(|divisor| !(**divisor > 0.0 && divisor.is_finite())) {
                return Err(format!("{name} contains {wrong}, expected numbers above 0"));
            }
        }
        check_amplitude(self.amplitude())
    }
}

fn check_amplitude(amplitude: f64) -> Result<(), String> {
    if amplitude > 0.0 && amplitude.is_finite() {
        return Ok(());
    }
    Err(format!("the factor of cosines and sines (attention_factor) is {amplitude}, expected a number above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a scaling whose ends are swapped, or that jumps between them: with 32 positions before scaling, a period of 8 is kept,
    /// one of 32 positions divided by 4, and one of 32 / 2.5 is half-way.
    #[test]
    fn llama3_divides_low_frequencies_and_keeps_high_ones() {
        let scaling = Scaling::Llama3 { factor: 4.0, low: 1.0, high: 4.0, original: 32 };
        let rope = Rope { scaling, ..Rope::new(1000.0) };
        let of_period = |period: f64| std::f64::consts::TAU / period;
        for (period, share) in [(8.0, 1.0), (2.0, 1.0), (32.0, 0.25), (500.0, 0.25), (32.0 / 2.5, 0.625)] {
            let plain = of_period(period);
            assert!((rope.llama3(plain) - share * plain).abs() < 1e-15, "{period}");
        }
        let linear = Rope { scaling: Scaling::Linear { factor: 2.0 }, ..Rope::new(100.0) };
        assert_eq!(linear.frequencies(4), [0.5, 0.05]);
        assert_eq!(Rope::new(100.0).frequencies(4), [1.0, 0.1]);
    }

    /// Catches a part of a head that is rounded to another number of pairs: 5 of 8 dimensions are 3 pairs, whose exponents count in
    /// fifths.
    #[test]
    fn a_part_of_a_head_is_rounded_up_to_pairs() {
        let rope = Rope { share: 0.7, ..Rope::new(32.0) };
        let expected = [1.0, 32_f64.powf(-0.4), 32_f64.powf(-0.8)];
        let found = rope.frequencies(8);
        assert_eq!(found.len(), 3);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?}");
        assert_eq!(rope.check(8), Ok(()));
        assert!(rope.check(1).unwrap_err().contains("holds no pair"));
    }
}
