//! Odds-ratio preference optimisation: pairs of answers, no reference. A pair has one prompt, a chosen answer c and a
//! rejected answer r. For an answer y:
//!
//! ```text
//! p(y)     = mean over y's supervised tokens of logp                    in nats per token
//! odds(y)  = exp p(y) / (1 - exp p(y))
//! log_odds = log odds(c) - log odds(r)
//!          = p(c) - p(r) - (log1mexp p(c) - log1mexp p(r)),             log1mexp x = log(1 - exp x)
//!
//! odds     = -log sigmoid(log_odds)                                     per pair
//! nll      = -sum over the tokens below of logp                         per such token
//! total    = nll + beta odds
//! ```
//!
//! (Hong et al. 2024, arXiv 2403.07691, equations 3 to 7; beta is the paper's lambda and TRL's `beta`.) The tokens of
//! `nll` are those of the chosen answers (`nll = "completion"`, the paper: the likelihood of y given x), or all tokens
//! of the chosen rows but the first, prompts included (`nll = "row"`, TRL and the authors' code). The odds are of the
//! answers alone in both.
//!
//! `logp` and `mask` are `[N]` tokens, aligned to the target; `group` and `side` are `[S]` sequences: the pair's
//! number, and 1 for chosen, 0 for rejected. The statistics exist only where the mask is 1, so with `nll = "row"`
//! [`compose`] supervises the prompts of the chosen rows too, and returns `answer` (`[N]`, 1 at the tokens of the
//! answers). A masked token adds nothing and its cotangent is exactly 0. The host divides `odds` by the pairs and
//! `nll` by its tokens, each of the whole optimizer window.

mod compose;

use compose::ANSWER;
use plugin_api::{batch::names, prelude::*};

/// The term of the chosen answers' likelihood.
const NLL: &str = "nll";
/// The term of the pairs.
const ODDS: &str = "odds";
/// An answer whose mean log-probability is nearer to 0 has odds that f32 cannot express; its gradient is 0.
const CERTAIN: f64 = -1e-9;

options! {
    /// Options of ORPO.
    pub struct Config {
        /// Weight of the odds-ratio loss: the paper's lambda, TRL's `beta`.
        beta: f64 = 0.1, from 0.0;
        /// Which tokens of a chosen row the likelihood is of: `completion`, those of the answer (the paper); `row`,
        /// all but the first, the prompt's included (TRL and the authors' code).
        nll: String = "completion".into(), of ["completion", "row"];
    }
}

/// ORPO.
pub struct Orpo(Config);

impl ObjectivePlugin for Orpo {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "ORPO: learns the chosen answer and lowers the odds of the rejected one, without a reference".into(),
            formula: "nll - beta log sigmoid(log odds(chosen) - log odds(rejected)), odds = exp p / (1 - exp p), p the mean of an \
                      answer's token log-probabilities; nll per token of the chosen answers (`nll = \"completion\"`, the paper) or \
                      of the chosen rows, prompts included (`nll = \"row\"`, TRL)"
                .into(),
            paper: "Hong et al. 2024, arXiv 2403.07691, equations 3 to 7".into(),
            data: DataKind::PREFERENCE,
            terms: vec![
                TermSpec::new(
                    NLL,
                    Normaliser::CUSTOM,
                    "Negative log-likelihood of the chosen answers, or of the chosen rows (`nll = \"row\"`), in nats per token",
                ),
                TermSpec::new(ODDS, Normaliser::PAIRS, "Odds-ratio loss; ln 2 where both answers have the same odds"),
            ],
            metrics: vec![
                mean(metric::LOG_ODDS, "Log odds of the chosen less those of the rejected answer"),
                mean(metric::ACCURACY, "Share of pairs whose chosen answer is more probable per token; a tie does not count"),
                mean(metric::CHOSEN, "Mean log-probability of the chosen answer's tokens, in nats per token"),
                mean(metric::REJECTED, "Mean log-probability of the rejected answer's tokens, in nats per token"),
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

impl Orpo {
    fn learns_prompts(&self) -> bool {
        self.0.nll == "row"
    }

    /// The supervised tokens of the answers.
    fn answers(&self, batch: &Batch<'_>) -> Result<Mask> {
        let mask = Mask::from(batch.mask()?);
        Ok(if self.learns_prompts() { mask.and(batch.get(ANSWER)?) } else { mask })
    }
}

impl Objective for Orpo {
    fn compose(&self, rows: &Batch<'_>, _seed: u64) -> Result<Option<Batch<'static>>> {
        self.learns_prompts().then(|| compose::with_prompts(rows)).transpose()
    }

    /// The tokens of `nll`: the supervised ones of the chosen rows.
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let tape = batch.tape()?;
        let chosen = tape.constant(batch.get(names::SIDE)?).to_tokens();
        Ok(vec![(NLL.to_owned(), chosen.masked_sum(batch.mask()?).scalar()?)])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let (group, side) = (batch.get(names::GROUP)?, batch.get(names::SIDE)?);
        let logp = batch.var(&tape, "logp")?;
        let chosen_rows = Mask::from(batch.mask()?).and(tape.constant(side).to_tokens().gt(0.5));
        let nll = -logp.masked_sum(&chosen_rows);

        let answers = logp.seq_mean(self.answers(batch)?);
        let (chosen, rejected) = (answers.chosen(group, side), answers.rejected(group, side));
        let log_odds = log_odds(chosen) - log_odds(rejected);
        let pairs = log_odds.to_vec()?.len() as f64;
        let right = (chosen - rejected).gt(0.0).count() as f64;

        let mut loss = Loss::new()
            .term(&tape, NLL, 1.0, nll)?
            .term(&tape, ODDS, self.0.beta, (-log_odds.log_sigmoid()).sum())?
            .metric(metric::ACCURACY, right, pairs);
        for (name, values) in [(metric::LOG_ODDS, log_odds), (metric::CHOSEN, chosen), (metric::REJECTED, rejected)] {
            loss = loss.metric(name, values.sum().scalar()?, pairs);
        }
        Ok(loss)
    }
}

/// `log(exp p / (1 - exp p))`. `1 - exp p` as written would lose all digits of a probability near 1.
fn log_odds(p: Var<'_>) -> Var<'_> {
    let p = p.clamp(f64::NEG_INFINITY, CERTAIN);
    p - p.log1mexp()
}

/// Names of the metrics.
mod metric {
    /// Difference of the log odds.
    pub const LOG_ODDS: &str = "log_odds";
    /// Share of pairs that are ranked correctly.
    pub const ACCURACY: &str = "accuracy";
    /// Mean log-probability of the chosen answers.
    pub const CHOSEN: &str = "logps/chosen";
    /// Mean log-probability of the rejected answers.
    pub const REJECTED: &str = "logps/rejected";
}

export_objective!("orpo", Orpo);
