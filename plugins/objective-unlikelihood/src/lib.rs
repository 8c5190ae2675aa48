//! Unlikelihood training at the level of tokens: cross-entropy, and a penalty for the probability of tokens that the
//! text has already used. For a target y at a position whose earlier tokens are x, with the model's probability p(v)
//! of a token v
//!
//! ```text
//! C            = the last K distinct tokens of x, without y                 negative candidates
//! nll          = -log p(y)
//! unlikelihood = -sum over c in C of log(1 - p(c))
//! total        = nll + alpha unlikelihood
//! ```
//!
//! per supervised token of the optimizer window, in nats (Welleck et al. 2020, arXiv 1908.04319, equations 4 to 6,
//! where C is all of x without y; here it is limited to K by the option `candidates`, because a backend computes one
//! number for each). As in the authors' code `1 - p` is at least 1e-5; a candidate beyond that has no gradient.
//!
//! [`compose`] returns the sequences as they are, with `candidate_ids` (`[N, K]`) and `negative` (`[N, K]`: 1 for a
//! candidate, 0 for a column that is only filled). `logp` and `mask` are `[N]` tokens, aligned to the target; the
//! statistic `candidates` is `[N, K]`: the log-probabilities of the ids. What is masked adds nothing and its cotangent
//! is exactly 0.

mod compose;

use compose::NEGATIVE;
use plugin_api::{manifest::Candidates, prelude::*};

/// The term of the targets.
const NLL: &str = "nll";
/// The term of the candidates.
const UNLIKELIHOOD: &str = "unlikelihood";
/// The least value of `1 - p`.
const LEAST: f64 = 1e-5;

options! {
    /// Options of unlikelihood training.
    pub struct Config {
        /// Weight of the unlikelihood.
        alpha: f64 = 1.0, in 0.0..=1000.0;
        /// K: the greatest number of candidates per token, at most the model's context length. A backend computes K numbers per token.
        candidates: i64 = 32, in 1..=4096;
    }
}

/// Unlikelihood training.
pub struct Unlikelihood(Config);

impl ObjectivePlugin for Unlikelihood {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "Cross-entropy that makes the repetition of earlier tokens less likely".into(),
            formula: "sum over supervised tokens of -log p(y) - alpha sum over c of log(max(1 - p(c), 1e-5)), c the last K distinct \
                      tokens of the sequence before y, without y, K = candidates"
                .into(),
            paper: "Welleck et al. 2020, arXiv 1908.04319, equations 4 to 6; there K is not limited".into(),
            data: DataKind::TEXT,
            terms: vec![
                TermSpec::new(NLL, Normaliser::SUPERVISED_TOKENS, "Negative log-likelihood of the targets, in nats per token"),
                TermSpec::new(
                    UNLIKELIHOOD,
                    Normaliser::SUPERVISED_TOKENS,
                    "Unlikelihood of the candidates, in nats per token, before it is weighted by alpha",
                ),
            ],
            metrics: vec![
                mean(metric::REPEATED, "Sum of the probabilities that the model gives to a token's candidates"),
                mean(metric::CANDIDATES, "Candidates per token; at most the option `candidates`"),
            ],
            expectations: vec![Expectation {
                quantity: NLL.into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised, so that the logits are nearly uniform".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Unlikelihood {
    fn columns(&self) -> usize {
        usize::try_from(self.0.candidates).unwrap_or(1)
    }
}

impl Objective for Unlikelihood {
    fn requirements(&self) -> Result<Requirements> {
        let count = self.columns() as u64;
        let candidates = Candidates::new(Candidates::COMPOSED, count);
        Ok(Requirements {
            candidates: Some(candidates),
            // A token has at most as many before it.
            least_context: Some(GivenNumber::new(count, "candidates")),
            ..Requirements::reading(["logp", "candidates"])
        })
    }

    fn compose(&self, rows: &Batch<'_>, _seed: u64) -> Result<Option<Batch<'static>>> {
        compose::with_candidates(rows, self.columns()).map(Some)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, Mask::from(batch.mask()?));
        let candidates = batch.var(&tape, "candidates")?;
        let negative = negative(batch, &mask)?;
        let nll = -batch.var(&tape, "logp")?.masked_sum(&mask);
        let unlikelihood = -candidates.clamp(f64::NEG_INFINITY, (-LEAST).ln_1p()).log1mexp().masked_sum(&negative);
        let (repeated, tokens) = (candidates.exp().masked_sum(&negative), mask.count() as f64);
        Ok(Loss::new()
            .term(&tape, NLL, 1.0, nll)?
            .term(&tape, UNLIKELIHOOD, self.0.alpha, unlikelihood)?
            .metric(metric::REPEATED, repeated.scalar()?, tokens)
            .metric(metric::CANDIDATES, negative.count() as f64, tokens))
    }
}

/// `[N, K]`: the candidates of supervised tokens.
fn negative(batch: &Batch<'_>, mask: &Mask) -> Result<Mask> {
    let flags = batch.array(NEGATIVE)?;
    let supervised = mask.bits().iter().flat_map(|bit| std::iter::repeat_n(*bit, flags.cols));
    Ok(Mask::from(flags.data.as_ref()).and(&supervised.collect::<Vec<bool>>()))
}

/// Names of the metrics.
mod metric {
    /// Probability of all candidates.
    pub const REPEATED: &str = "repeated";
    /// Number of candidates.
    pub const CANDIDATES: &str = "candidates_per_token";
}

export_objective!("unlikelihood", Unlikelihood);
