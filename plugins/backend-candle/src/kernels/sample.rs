//! Drawing tokens from logits with the host's noise.
//!
//! Only the part of the ranking that the draw needs is sorted: the best few, then four times as many, until the draw is decided.

use crate::kernels::{
    context::Kernels,
    primitives::math::{exp_nonpositive, max},
};
use plugin_api::{Code, Error, Result, backend::ops::Sample};
use std::cmp::Ordering;

/// Tokens ranked at first.
const FIRST: usize = 64;

/// Draws a token per row.
pub fn sample(s: &mut Kernels<'_>, op: &Sample) -> Result<()> {
    check(op)?;
    let (logits, noise) = (s.input(&op.logits)?, s.input(&op.noise)?);
    let token = s.ints_mut(&op.token)?;
    let (logp, kept_logp) = (s.output(&op.logp)?, s.output_opt(&op.kept_logp)?);
    let kept_entropy = s.output_opt(&op.kept_entropy)?;
    // A view without a row may have any number of columns.
    if logits.rows == 0 {
        return Ok(());
    }
    s.cx.logits.resize(s.cx.logits.len().max(logits.cols), 0.0);
    let mut ranked = Vec::new();
    for (b, token) in token.iter_mut().enumerate() {
        // SAFETY: checked views, no other thread is running.
        let (z, noise) = unsafe { (logits.row(b), noise.row(0)[b]) };
        let weights = &mut s.cx.logits[..z.len()];
        let drawn = s.cx.par.wide(
            #[inline(always)]
            || draw(op, z, weights, &mut ranked, f64::from(noise)),
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
pub fn draw(op: &Sample, z: &[f32], weights: &mut [f32], ranked: &mut Vec<u32>, noise: f64) -> Drawn {
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
            Some(kept) => ranked[..kept.count].iter().map(|v| along(*v as usize)).sum(),
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

/// Ranks by descending logit (lower index first on ties) and goes down the ranking. Returns the token, and the tokens that are
/// kept; `None`: all.
fn pick(
    op: &Sample,
    z: &[f32],
    weights: &[f32],
    ranked: &mut Vec<u32>,
    noise: f64,
    total: f64,
) -> (usize, Option<Kept>) {
    let better = |a: &u32, b: &u32| -> Ordering { z[*b as usize].total_cmp(&z[*a as usize]).then(a.cmp(b)) };
    let weight = |v: &u32| f64::from(weights[*v as usize]);
    let all = z.len();
    let most = if op.top_k > 0 { (op.top_k as usize).min(all) } else { all };
    let whole = op.top_p >= 1.0 && most == all;
    ranked.clear();
    ranked.extend(0..all as u32);
    let mut sorted = FIRST.min(most);
    loop {
        if sorted < all {
            ranked.select_nth_unstable_by(sorted, better);
        }
        ranked[..sorted].sort_unstable_by(better);
        let left = keep(op, &ranked[..sorted], most, total, weight);
        // Without top-k and top-p the total is known before the ranking ends.
        let mass = match left {
            Some(left) => ranked[..left].iter().map(weight).sum(),
            None => total,
        };
        let reach = left.unwrap_or(sorted);
        if left.is_some() || whole {
            let kept = left.filter(|_| !whole).map(|count| Kept { count, mass });
            let mut cumulative = 0.0;
            for v in &ranked[..reach] {
                cumulative += weight(v);
                if cumulative > noise * mass {
                    return (*v as usize, kept);
                }
            }
            if left.is_some() {
                return (ranked[reach - 1] as usize, kept);
            }
        }
        sorted = (4 * sorted).min(most);
    }
}

/// How many tokens top-k and top-p keep, if the ranked ones suffice to decide.
fn keep(op: &Sample, ranked: &[u32], most: usize, total: f64, weight: impl Fn(&u32) -> f64) -> Option<usize> {
    if op.top_p < 1.0 {
        let mut reached = 0.0;
        let enough = ranked.iter().position(|v| {
            reached += weight(v);
            reached >= op.top_p * total
        });
        if let Some(last) = enough {
            return Some(last + 1);
        }
    }
    (ranked.len() == most).then_some(most)
}
