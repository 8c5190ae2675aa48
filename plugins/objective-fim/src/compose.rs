//! The sequences of a window, a share of them rewritten.

use crate::config::Config;
use plugin_api::{batch::names, prelude::*};

/// Per token: 0 in a sequence as it was, 1 in a rewritten one, 2 in its middle. It is returned with the sequences.
pub const PLACE: &str = "place";

/// Sentinels of a rewritten sequence.
const SENTINELS: usize = 3;

/// What a token belongs to: the values of the array `place`.
mod place {
    /// A sequence as it was.
    pub const PLAIN: f64 = 0.0;
    /// A rewritten sequence.
    pub const REWRITTEN: f64 = 1.0;
    /// Its middle and the end of text after it.
    pub const MIDDLE: f64 = 2.0;
}

/// Each sequence as it was or rewritten. A sequence with unsupervised tokens beyond the first, which is only read,
/// stays as it was: their order has a meaning that is not known here; so does one that is too short for a token
/// besides the sentinels.
///
/// # Errors
/// [`Code::ARRAY`] for an array that is missing.
pub fn rewritten(config: &Config, rows: &Batch<'_>, seed: u64) -> Result<Batch<'static>> {
    let (offsets, token, mask, row) = (rows.offsets()?, rows.get("token")?, rows.mask()?, rows.get("row")?);
    let longest = rows.get(names::LONGEST)?.first().map_or(usize::MAX, |longest| *longest as usize);
    let mut made = Sequences { offsets: vec![0.0], ..Sequences::default() };
    for (bounds, row) in offsets.windows(2).zip(row) {
        let (own, supervised) = (&token[bounds[0]..bounds[1]], &mask[bounds[0]..bounds[1]]);
        let mut draws = Draws::new(seed, *row, own);
        let chosen = draws.unit() < config.rate && supervised.iter().skip(1).all(|m| *m == 1.0);
        match chosen.then(|| Parts::cut(config, own, longest, &mut draws)).flatten() {
            Some(parts) => made.push_rewritten(config, &parts, draws.unit() < config.spm_rate),
            None => made.push(own, supervised, place::PLAIN),
        }
        made.offsets.push(made.token.len() as f64);
    }
    Ok(Batch::new()
        .with(names::OFFSETS, Scope::BATCH, made.offsets)
        .with("token", Scope::TOKEN, made.token)
        .with(names::MASK, Scope::TOKEN, made.mask)
        .with("row", Scope::SEQUENCE, row.to_vec())
        .with(PLACE, Scope::TOKEN, made.place))
}

/// The parts of a sequence.
struct Parts<'a> {
    /// The token that texts begin with, or nothing.
    begin: &'a [f64],
    prefix: &'a [f64],
    middle: &'a [f64],
    suffix: &'a [f64],
    /// The end-of-text token, or nothing.
    end: &'a [f64],
}

impl<'a> Parts<'a> {
    /// Drops the last tokens of a text that does not fit with its sentinels, and cuts the rest at two places, each
    /// anywhere between tokens with the same probability. `None` if no token fits.
    fn cut(config: &Config, own: &'a [f64], longest: usize, draws: &mut Draws) -> Option<Self> {
        let (begin, rest) = own.split_at(usize::from(own.first() == Some(&(config.begin_id as f64))));
        let (text, end) = rest.split_at(rest.len() - usize::from(rest.last() == Some(&(config.end_id as f64))));
        let room = longest.checked_sub(begin.len() + SENTINELS + end.len())?;
        let text = &text[..text.len().min(room)];
        let (one, two) = (draws.below(text.len() + 1), draws.below(text.len() + 1));
        let (first, second) = (one.min(two), one.max(two));
        let parts = Self { begin, prefix: &text[..first], middle: &text[first..second], suffix: &text[second..], end };
        (!text.is_empty()).then_some(parts)
    }
}

/// Arrays while they are filled.
#[derive(Default)]
struct Sequences {
    offsets: Vec<f64>,
    token: Vec<f64>,
    mask: Vec<f64>,
    place: Vec<f64>,
}

impl Sequences {
    fn push(&mut self, tokens: &[f64], mask: &[f64], place: f64) {
        self.token.extend(tokens);
        self.mask.extend(mask);
        self.place.extend(tokens.iter().map(|_| place));
    }

    fn push_rewritten(&mut self, config: &Config, parts: &Parts<'_>, spm: bool) {
        let [prefix, suffix, middle] = [config.prefix_id, config.suffix_id, config.middle_id].map(|id| [id as f64]);
        let before: [&[f64]; 5] = match spm {
            false => [&prefix, parts.prefix, &suffix, parts.suffix, &middle],
            true => [&prefix, &suffix, parts.suffix, &middle, parts.prefix],
        };
        let first = self.mask.len();
        for tokens in [parts.begin].into_iter().chain(before) {
            self.push(tokens, &vec![1.0; tokens.len()], place::REWRITTEN);
        }
        for tokens in [parts.middle, parts.end] {
            self.push(tokens, &vec![1.0; tokens.len()], place::MIDDLE);
        }
        // It is only read.
        self.mask[first] = 0.0;
    }
}

/// Random numbers (SplitMix64) that depend only on the seed of the call, the number of a row and its tokens: the order
/// of the rows does not matter, and the sequences of one long text, which share its number, are cut at different
/// places.
struct Draws(u64);

impl Draws {
    fn new(seed: u64, row: f64, tokens: &[f64]) -> Self {
        let fold = |mut draws: Self, value: &f64| Self(draws.next() ^ value.to_bits());
        [row].iter().chain(tokens).fold(Self(seed), fold)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1, from 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in 0..bound; the bias is below bound / 2^64.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}
