//! Drawing tokens from logits with the host's noise.

use super::attention::softmax;
use crate::{Reference, matrix::Matrix, session::require};
use plugin_api::{Result, backend::ops};

/// Draws a token per row; its log-probabilities are those under the whole softmax and under the truncated one.
pub fn sample(s: &mut Reference, op: &ops::Sample) -> Result<()> {
    require(op.temperature >= 0.0, "sample", || format!("temperature {} is negative", op.temperature))?;
    require(op.top_k >= 0, "sample", || format!("top_k {} is negative", op.top_k))?;
    require(op.top_p > 0.0 && op.top_p <= 1.0, "sample", || format!("top_p {} is outside (0, 1]", op.top_p))?;
    let (logits, noise) = (s.read(&op.logits)?, s.read(&op.noise)?);
    require(logits.cols > 0 || logits.rows == 0, "sample", || "there is no token to draw".into())?;
    let mut token = Matrix::zeros(1, logits.rows);
    let [mut logp, mut kept_logp, mut kept_entropy] = [(); 3].map(|()| Matrix::zeros(1, logits.rows));
    let temperature = if op.temperature > 0.0 { op.temperature } else { 1.0 };
    for b in 0..logits.rows {
        let z: Vec<f64> = logits.row(b).iter().map(|z| z / temperature).collect();
        let mut p = z.clone();
        let lse = softmax(&mut p);
        // The sort is stable, so equal logits keep the lower index first.
        let mut ranked: Vec<usize> = (0..z.len()).collect();
        ranked.sort_by(|&i, &j| z[j].total_cmp(&z[i]));
        let kept = cut(&ranked, &p, op);
        let drawn = if op.temperature > 0.0 { draw(kept, &p, noise.data[b]) } else { ranked[0] };
        token.data[b] = drawn as f64;
        logp.data[b] = z[drawn] - lse;
        if op.temperature > 0.0 {
            // By id: down the ranking equal terms are added next to each other, and their roundings have one direction.
            let mut kept = kept.to_vec();
            kept.sort_unstable();
            // Without truncation the two distributions are the same, to the bit.
            let whole = kept.len() == z.len();
            let mut shares: Vec<f64> = kept.iter().map(|&v| if whole { p[v] } else { z[v] }).collect();
            let kept_lse = if whole { lse } else { softmax(&mut shares) };
            kept_logp.data[b] = z[drawn] - kept_lse;
            let surprises = kept.iter().map(|&v| kept_lse - z[v]);
            let likely = surprises.zip(&shares).filter(|(_, share)| **share > 0.0);
            kept_entropy.data[b] = likely.map(|(surprise, share)| share * surprise).sum();
        }
    }
    s.write(&op.token, &token)?;
    s.write(&op.logp, &logp)?;
    s.write_opt(&op.kept_logp, &kept_logp)?;
    s.write_opt(&op.kept_entropy, &kept_entropy)
}

/// The ranked tokens that `top_k` and `top_p` keep: at least one.
fn cut<'a>(ranked: &'a [usize], p: &[f64], op: &ops::Sample) -> &'a [usize] {
    let by_count = if op.top_k > 0 { (op.top_k as usize).min(ranked.len()) } else { ranked.len() };
    let mut by_share = ranked.len();
    if op.top_p < 1.0 {
        let mut reached = 0.0;
        let enough = |&v: &usize| {
            reached += p[v];
            reached >= op.top_p
        };
        by_share = ranked.iter().position(enough).map_or(ranked.len(), |last| last + 1);
    }
    &ranked[..by_count.min(by_share).max(1)]
}

/// The first token whose cumulative share of the remaining probability exceeds the noise.
fn draw(left: &[usize], p: &[f64], noise: f64) -> usize {
    let total: f64 = left.iter().map(|&v| p[v]).sum();
    let mut cumulative = 0.0;
    for &v in left {
        cumulative += p[v];
        if cumulative > noise * total {
            return v;
        }
    }
    left[left.len() - 1]
}
