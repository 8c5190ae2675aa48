//! Drawing tokens from logits with the host's noise.
//!
//! Tokens are ranked by descending logit. Only the place of the ranking at which the draw falls is sorted: it is found by halving, as
//! quickselect finds an element, so that a draw takes time proportional to the vocabulary also if the distribution is flat.

use crate::kernels::{
    context::Kernels,
    primitives::{
        element::{Element, is_f32},
        math::{exp_nonpositive, max},
        operand::{Mat, MatMut},
        parallel::grow,
    },
};
use plugin_api::{Code, Error, Result, backend::ops::Sample};

/// Tokens that are sorted.
const FEW: usize = 64;
/// The best tokens that are looked at first: they decide most draws of a trained model.
const FIRST: usize = 1024;

/// Draws a token per row.
pub fn sample<E: Element>(s: &mut Kernels<'_>, op: &Sample) -> Result<()> {
    check(op)?;
    let (logits, noise): (Mat<E>, Mat) = (s.input(&op.logits)?, s.input(&op.noise)?);
    let token = s.ints_mut(&op.token)?;
    let (logp, kept_logp): (MatMut, Option<MatMut>) = (s.output(&op.logp)?, s.output_opt(&op.kept_logp)?);
    let kept_entropy: Option<MatMut> = s.output_opt(&op.kept_entropy)?;
    // A view without a row may have any number of columns.
    if logits.rows == 0 {
        return Ok(());
    }
    // The weights, and the logits in f32.
    let len = logits.cols + if is_f32::<E>() { 0 } else { logits.cols };
    grow(&mut s.cx.logits, len);
    let (weights, row) = s.cx.logits[..len].split_at_mut(logits.cols);
    let (par, ranked) = (&s.cx.par, &mut s.cx.keys);
    for (b, token) in token.iter_mut().enumerate() {
        // SAFETY: checked views, no other thread is running.
        let (z, noise) = unsafe { (logits.row(b), noise.row(0)[b]) };
        let drawn = par.wide(
            #[inline(always)]
            || draw(op, E::floats(z, row), weights, ranked, f64::from(noise)),
        );
        *token = drawn.token as i32;
        // SAFETY: as above.
        unsafe {
            logp.row(0)[b] = drawn.logp;
            for (row, value) in [(kept_logp, drawn.kept_logp), (kept_entropy, drawn.kept_entropy)] {
                if let Some(row) = row {
                    row.row(0)[b] = value;
                }
            }
        }
    }
    Ok(())
}

/// Refuses attributes out of range and an empty vocabulary.
///
/// # Errors
/// [`Code::INVALID_ARGUMENT`]; [`Code::SHAPE`] if there is no token to draw.
pub fn check(op: &Sample) -> Result<()> {
    if !(op.temperature >= 0.0 && op.temperature.is_finite()) {
        return Err(Error::invalid(format!("sample: temperature {} is negative", op.temperature)));
    }
    if op.top_k < 0 {
        return Err(Error::invalid(format!("sample: top_k {} is negative", op.top_k)));
    }
    if !(op.top_p > 0.0 && op.top_p <= 1.0) {
        return Err(Error::invalid(format!("sample: top_p {} is outside (0, 1]", op.top_p)));
    }
    if op.logits.cols == 0 && op.logits.rows > 0 {
        return Err(Error::new(Code::SHAPE, "sample: there is no token to draw"));
    }
    Ok(())
}

/// A drawn token with its outputs; those of the kept tokens are 0 unless they were requested.
pub struct Drawn {
    /// The token.
    pub token: usize,
    /// Its log-probability under the whole softmax.
    pub logp: f32,
    /// Its log-probability among the kept tokens.
    pub kept_logp: f32,
    /// The entropy of their distribution.
    pub kept_entropy: f32,
}

/// Draws a token. `weights` and `ranked` are scratch.
#[inline(always)]
pub fn draw(op: &Sample, z: &[f32], weights: &mut [f32], ranked: &mut Vec<u64>, noise: f64) -> Drawn {
    let temperature = if op.temperature > 0.0 { op.temperature as f32 } else { 1.0 };
    let largest = max(z);
    for (w, z) in weights.iter_mut().zip(z) {
        *w = exp_nonpositive((z - largest) / temperature);
    }
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    let level = |v: usize| f64::from((z[v] - largest) / temperature);
    if op.temperature <= 0.0 {
        let token = z.iter().position(|z| *z == largest).unwrap_or(0);
        return Drawn { token, logp: (level(token) - total.ln()) as f32, kept_logp: 0.0, kept_entropy: 0.0 };
    }
    let (token, kept) = pick(op, z, weights, ranked, noise, total);
    let mut drawn = Drawn { token, logp: (level(token) - total.ln()) as f32, kept_logp: 0.0, kept_entropy: 0.0 };
    let mass = kept.as_ref().map_or(total, |kept| kept.mass);
    drawn.kept_logp = (level(token) - mass.ln()) as f32;
    if op.kept_entropy.is_some() {
        // A token of weight 0 adds nothing, not 0 times infinity.
        let along = |v: usize| if weights[v] > 0.0 { f64::from(weights[v]) * level(v) } else { 0.0 };
        let along: f64 = match kept {
            Some(kept) => ranked[..kept.count].iter().map(|key| along(token_of(*key))).sum(),
            None => (0..z.len()).map(along).sum(),
        };
        drawn.kept_entropy = (mass.ln() - along / mass) as f32;
    }
    drawn
}

/// The first tokens of the ranking that top-k and top-p keep.
struct Kept {
    count: usize,
    /// The sum of their weights.
    mass: f64,
}

/// A token with its place in the ranking: the larger key is the better token, by logit, or by the lower index on ties.
fn key(token: u32, logit: f32) -> u64 {
    let bits = logit.to_bits() as i32;
    // Orders as `f32::total_cmp`.
    let ordered = (bits ^ ((bits >> 31) as u32 >> 1) as i32) as u32 ^ 1 << 31;
    u64::from(ordered) << 32 | u64::from(!token)
}

fn token_of(key: u64) -> usize {
    !(key as u32) as usize
}

/// Returns the drawn token, and the tokens that top-k and top-p keep; `None`: all. The kept ones are the first of `ranked`.
fn pick(
    op: &Sample,
    z: &[f32],
    weights: &[f32],
    ranked: &mut Vec<u64>,
    noise: f64,
    total: f64,
) -> (usize, Option<Kept>) {
    let weight = |key: &u64| f64::from(weights[token_of(*key)]);
    ranked.clear();
    ranked.extend((0..).zip(z).map(|(token, logit)| key(token, *logit)));
    let all = z.len();
    let mut count = if op.top_k > 0 { (op.top_k as usize).min(all) } else { all };
    if count < all {
        ranked.select_nth_unstable_by(count, |a, b| b.cmp(a));
    }
    let mut mass = None;
    if op.top_p < 1.0
        && let Some((last, sum)) = reach(&mut ranked[..count], weight, |sum| sum >= op.top_p * total)
    {
        (count, mass) = (last + 1, Some(sum));
    }
    let kept = &mut ranked[..count];
    let mass = match mass {
        Some(mass) => mass,
        None if count == all => total,
        None => kept.iter().map(weight).sum(),
    };
    let drawn = match reach(kept, weight, |sum| sum > noise * mass) {
        Some((place, _)) => kept.get(place).copied(),
        // By rounding the sum may stay below the mass: then it is the last one.
        None => kept.iter().min().copied(),
    };
    let whole = op.top_p >= 1.0 && count == all;
    (drawn.map_or(0, token_of), (!whole).then_some(Kept { count, mass }))
}

/// The first place of the ranking at which the sum of the weights so far `passes`, and that sum; `None` if there is none. Moves the
/// better tokens before it.
fn reach(keys: &mut [u64], weight: impl Fn(&u64) -> f64, passes: impl Fn(f64) -> bool) -> Option<(usize, f64)> {
    let (mut low, mut high, mut sum, mut found) = (0, keys.len(), 0.0, false);
    while high - low > FEW {
        let half = (high - low) / 2;
        let count = if low == 0 && high == keys.len() { half.min(FIRST) } else { half };
        let part = &mut keys[low..high];
        part.select_nth_unstable_by(count, |a, b| b.cmp(a));
        let more: f64 = part[..count].iter().map(&weight).sum();
        if passes(sum + more) {
            (high, found) = (low + count, true);
        } else {
            (low, sum) = (low + count, sum + more);
        }
    }
    let part = &mut keys[low..high];
    part.sort_unstable_by(|a, b| b.cmp(a));
    let place = part.iter().position(|key| {
        sum += weight(key);
        passes(sum)
    });
    // A sum in another order may round to the other side of the limit: the place is then the last one of the part that passed.
    place.map(|place| low + place).or(found.then(|| high - 1)).map(|place| (place, sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plugin_api::backend::{DType, Handle, View};
    use telos_random::SplitMix64;

    fn op(top_k: i64, top_p: f64) -> Sample {
        let view = View::dense(Handle(0), DType::F32, 0, 0);
        Sample {
            logits: view,
            noise: view,
            token: view,
            logp: view,
            kept_logp: None,
            kept_entropy: None,
            temperature: 1.0,
            top_k,
            top_p,
        }
    }

    /// Draws from the whole ranking, sorted.
    fn sorted(op: &Sample, z: &[f32], weights: &[f32], noise: f64, total: f64) -> (usize, Vec<usize>, f64) {
        let mut ranked: Vec<usize> = (0..z.len()).collect();
        ranked.sort_by(|a, b| z[*b].total_cmp(&z[*a]).then(a.cmp(b)));
        if op.top_k > 0 {
            ranked.truncate(op.top_k as usize);
        }
        let weight = |v: &usize| f64::from(weights[*v]);
        let mut reached = 0.0;
        let last = ranked.iter().position(|v| {
            reached += weight(v);
            op.top_p < 1.0 && reached >= op.top_p * total
        });
        ranked.truncate(last.map_or(ranked.len(), |last| last + 1));
        let mass: f64 = ranked.iter().map(weight).sum();
        let mut cumulative = 0.0;
        let drawn = ranked.iter().find(|v| {
            cumulative += weight(v);
            cumulative > noise * mass
        });
        (*drawn.or(ranked.last()).unwrap(), ranked, mass)
    }

    /// Catches a half of the ranking that is searched on the wrong side, a sum that leaves out what was skipped, ties in another
    /// order, and kept tokens that are not the best ones. Weights are powers of two, so that every order of a sum gives the same bits.
    #[test]
    fn a_draw_equals_one_from_the_sorted_ranking() {
        let mut random = SplitMix64::new(7);
        let mut ranked = Vec::new();
        for (tokens, levels) in [(1, 1), (3, 2), (64, 1), (65, 9), (1000, 1), (5000, 20), (5000, 1), (3000, 2)] {
            let level: Vec<u64> = (0..tokens).map(|_| random.bits() % levels).collect();
            let z: Vec<f32> = level.iter().map(|level| -(*level as f32)).collect();
            let weights: Vec<f32> = level.iter().map(|level| 0.5f32.powi(*level as i32)).collect();
            let total = weights.iter().map(|w| f64::from(*w)).sum();
            for (top_k, top_p) in [(0, 1.0), (0, 0.9), (0, 0.25), (40, 1.0), (40, 0.5), (2000, 0.99), (1, 1.0)] {
                for noise in [0.0, 0.03, 0.25, 0.5, 0.75, 0.97, 1.0 - 1e-9] {
                    let op = op(top_k, top_p);
                    let (token, expected, mass) = sorted(&op, &z, &weights, noise, total);
                    let (drawn, kept) = pick(&op, &z, &weights, &mut ranked, noise, total);
                    assert_eq!(drawn, token, "{tokens} tokens, {levels} levels, {top_k}, {top_p}, {noise}");
                    if let Some(kept) = kept {
                        let mut own: Vec<usize> = ranked[..kept.count].iter().map(|key| token_of(*key)).collect();
                        let mut expected = expected;
                        own.sort_unstable();
                        expected.sort_unstable();
                        assert_eq!((own, kept.mass), (expected, mass), "{tokens} tokens, {top_k}, {top_p}");
                    }
                }
            }
        }
    }

    /// Catches keys whose order is not that of the logits.
    #[test]
    fn keys_are_ordered_as_logits() {
        let logits = [f32::INFINITY, 3.5, 1e-40, 0.0, -0.0, -1e-40, -2.0, f32::MIN, f32::NEG_INFINITY];
        let keys: Vec<u64> = logits.iter().map(|logit| key(5, *logit)).collect();
        assert!(keys.windows(2).all(|pair| pair[0] > pair[1]), "{keys:?}");
        assert!(key(4, 1.0) > key(5, 1.0) && token_of(key(5, 1.0)) == 5 && token_of(key(0, -1.0)) == 0);
    }
}
