//! Sampling.

use super::{
    bounded::{Bounded, exact, log_sum_exp, sum},
    operands::{Formulas, Matrix, Operands, Outputs},
};
use plugin_api::Result;

/// The operations of this file.
pub const FORMULAS: Formulas = &[("sample", sample)];

/// Log-probabilities of the tokens that the reference drew, `drawn[b]` in row b: under the whole softmax, and under the
/// truncated one with its entropy.
fn sample(o: &Operands<'_>) -> Result<Outputs> {
    let drawn = o.of_reference("token");
    let (logits, temperature) = (o.matrix("logits")?, o.factor("temperature")?);
    let greedy = temperature.value == 0.0;
    let temperature = if greedy { exact(1.0) } else { temperature };
    let (top_k, top_p) = (o.size("top_k")?, o.number("top_p")?);
    let [mut logp, mut kept_logp, mut kept_entropy] = [(); 3].map(|()| Vec::new());
    for (b, &token) in drawn.iter().enumerate() {
        let z: Vec<Bounded> = logits.row(b).iter().map(|&z| z / temperature).collect();
        let lse = log_sum_exp(&z, |p| p);
        logp.push(z[token as usize] - lse);
        if greedy {
            kept_logp.push(exact(0.0));
            kept_entropy.push(exact(0.0));
            continue;
        }
        let kept = kept(&z, lse.value, top_k, top_p);
        let kept_lse = log_sum_exp(&kept, |p| p);
        kept_logp.push(z[token as usize] - kept_lse);
        let surprises = kept.iter().map(|&z| kept_lse - z).filter(|surprise| (-surprise.value).exp() > 0.0);
        kept_entropy.push(sum(surprises.map(|surprise| (-surprise).exp() * surprise)));
    }
    let rows = [("logp", logp), ("kept_logp", kept_logp), ("kept_entropy", kept_entropy)];
    Ok(rows.map(|(name, row)| (name, Matrix::of_row(row))).into())
}

/// The logits that top-k and top-p keep, by id. The cases leave no doubt about their number.
fn kept(z: &[Bounded], lse: f64, top_k: usize, top_p: f64) -> Vec<Bounded> {
    let mut ranked: Vec<usize> = (0..z.len()).collect();
    ranked.sort_by(|&a, &b| z[b].value.total_cmp(&z[a].value));
    let mut reached = 0.0;
    let enough = |&v: &usize| {
        reached += (z[v].value - lse).exp();
        reached >= top_p
    };
    let by_share = if top_p < 1.0 { ranked.iter().position(enough) } else { None };
    let by_count = if top_k > 0 { top_k } else { ranked.len() };
    ranked.truncate(by_share.map_or(ranked.len(), |last| last + 1).min(by_count));
    ranked.sort_unstable();
    ranked.into_iter().map(|v| z[v]).collect()
}
