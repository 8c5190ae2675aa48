//! Log-probabilities of candidates and their tail, which together are one distribution per token, and the candidates' ids.

use plugin_api::{
    Result,
    batch::{Array, Batch, Scope, names},
    objective::{has_gradient, trains},
};
use telos_random::SplitMix64;

use super::values::Values;

/// The statistics' plain names.
pub(super) const CANDIDATES: &str = "candidates";
pub(super) const TAIL: &str = "tail";

/// A role's distributions: of N tokens K log-probabilities, and of each the tail.
pub(super) struct Distributions {
    /// `[N, K]`.
    pub(super) candidates: Vec<f64>,
    /// `[N]`.
    pub(super) tail: Vec<f64>,
}

/// `count` ids of a vocabulary for each of the batch's tokens, those of a token distinct.
pub(super) fn ids(batch: &Batch<'_>, count: usize, vocabulary: usize, rng: &mut SplitMix64) -> Result<Array<'static>> {
    let vocabulary = vocabulary.max(count);
    let mut all = Vec::new();
    for _ in 0..batch.tokens()? {
        let (start, stride) = (rng.below(vocabulary), 1 + rng.below(vocabulary / count));
        all.extend((0..count).map(|k| ((start + k * stride) % vocabulary) as f64));
    }
    let name = names::CANDIDATE_IDS.into();
    Ok(Array { name, scope: Scope::TOKEN, differentiable: false, cols: count, data: all.into() })
}

/// The distributions that the role with this prefix (empty: the policy) gives the candidates of `batch`, whose older statistics
/// are moved or replaced, as `values` says.
pub(super) fn distributions(
    batch: &Batch<'_>,
    role: &str,
    values: Values,
    vocabulary: usize,
    rng: &mut SplitMix64,
) -> Result<Distributions> {
    let name = |base: &str| if role.is_empty() { base.to_owned() } else { format!("{role}.{base}") };
    let (count, tokens) = (batch.array(names::CANDIDATE_IDS)?.cols, batch.tokens()?);
    let (candidates, tail) = (batch.find(&name(CANDIDATES)), batch.find(&name(TAIL)));
    let mut all = Distributions { candidates: Vec::new(), tail: Vec::new() };
    for n in 0..tokens {
        let own = candidates.and_then(|array| array.data.get(n * count..(n + 1) * count));
        let old = old(own, tail.and_then(|array| array.data.get(n)).copied(), count);
        let mut moved = |old: Vec<f64>, by: f64| {
            let shift = |k: usize| if k < count { by } else { 0.0 };
            normalised(old.iter().enumerate().map(|(k, x)| x + shift(k) + rng.between(-0.3, 0.3)).collect())
        };
        let new = match (values, old) {
            (Values::Zero, _) => vec![0.0; count + 1],
            (Values::Uniform, _) => uniform(count, vocabulary),
            (Values::Near(_) | Values::Shifted(..), Some(old)) if !role.is_empty() && !trains(role) => old,
            (Values::Near(_), Some(old)) => moved(old, 0.0),
            (Values::Shifted(_, by), Some(old)) => moved(old, by),
            _ => normalised((0..=count).map(|_| rng.between(-2.0, 2.0)).collect()),
        };
        all.candidates.extend(&new[..count]);
        all.tail.push(new[count]);
    }
    Ok(all)
}

/// Whether a statistic keeps its values while the trained models move.
pub(super) fn is_frozen(name: &str, role: &str) -> bool {
    !trains(role) && !has_gradient(name)
}

/// K log-probabilities and the tail, from those of the two that are known.
fn old(candidates: Option<&[f64]>, tail: Option<f64>, count: usize) -> Option<Vec<f64>> {
    const LEAST: f64 = 1e-12;
    let rest = |taken: f64| (1.0 - taken).max(LEAST).ln();
    match (candidates, tail) {
        (None, None) => None,
        (Some(own), tail) => {
            let tail = tail.unwrap_or_else(|| rest(own.iter().map(|x| x.exp()).sum()));
            Some(own.iter().copied().chain([tail]).collect())
        }
        (None, Some(tail)) => {
            let each = rest(tail.exp()) - (count as f64).ln();
            Some(std::iter::repeat_n(each, count).chain([tail]).collect())
        }
    }
}

fn uniform(count: usize, vocabulary: usize) -> Vec<f64> {
    let (all, own) = (vocabulary.max(count) as f64, count as f64);
    std::iter::repeat_n(-all.ln(), count).chain([((all - own) / all).ln()]).collect()
}

/// Logits as log-probabilities.
fn normalised(logits: Vec<f64>) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = most + logits.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
    logits.into_iter().map(|x| x - sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Generator;
    use plugin_api::manifest::ObjectiveManifest;

    /// Catches statistics of candidates that are not one distribution (an objective that adds them up would be checked on numbers
    /// that no model gives), ids that repeat at a token, a frozen role that moves with the policy, and a divergence that does not.
    #[test]
    fn candidates_and_their_tail_are_one_distribution() {
        let generator = Generator::new(3).with_vocabulary(9).with_candidates(4);
        let data = generator.data(&ObjectiveManifest::default(), 0);
        let read = ["tail", "candidates", "teacher.candidates", "teacher.tail", "teacher.kl"].map(str::to_owned);
        let batch = generator.fill(&data, &read, Values::Random(1)).unwrap();
        assert!(batch.check().is_ok());
        let sums = |batch: &Batch<'_>, role: &str| {
            let (own, tail) =
                (batch.get(&format!("{role}candidates")).unwrap(), batch.get(&format!("{role}tail")).unwrap());
            assert_eq!(own.len(), 4 * tail.len());
            let sum = |(own, tail): (&[f64], &f64)| own.iter().chain([tail]).map(|x| x.exp()).sum::<f64>();
            assert!(own.chunks(4).zip(tail).map(sum).all(|sum| (sum - 1.0).abs() < 1e-12));
        };
        let all = [Values::Near(2), Values::Shifted(2, 1.5), Values::Uniform];
        let others = all.map(|values| generator.fill(&batch, &read, values).unwrap());
        for filled in others.iter().chain([&batch]) {
            sums(filled, "");
            sums(filled, "teacher.");
            let ids = filled.array(names::CANDIDATE_IDS).unwrap();
            for own in ids.data.chunks(4) {
                assert!(own.iter().all(|id| id.fract() == 0.0 && (0.0..9.0).contains(id)), "{own:?}");
                assert!((0..4).all(|k| !own[..k].contains(&own[k])), "{own:?}");
            }
            assert_eq!(ids, batch.array(names::CANDIDATE_IDS).unwrap());
            assert!(filled.get("teacher.kl").unwrap().iter().all(|kl| *kl >= 0.0));
        }
        assert_eq!(others[0].get("teacher.tail").unwrap(), batch.get("teacher.tail").unwrap());
        assert_ne!(others[0].get("tail").unwrap(), batch.get("tail").unwrap());
        assert_ne!(others[0].get("teacher.kl").unwrap(), batch.get("teacher.kl").unwrap());
        let gradients = |name: &str| batch.array(name).unwrap().differentiable;
        assert_eq!(read.clone().map(|name| gradients(&name)), [true, true, false, false, true]);
        assert!(others[2].get("teacher.kl").unwrap().iter().all(|kl| *kl == 0.0));
    }
}
