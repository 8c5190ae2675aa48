//! Fill in the middle: a share of the texts is rewritten so that a model learns to write a missing middle. A sequence
//! without its end-of-text token is cut at two places into prefix, middle and suffix, and becomes one of
//!
//! ```text
//! PSM        <prefix> prefix <suffix> suffix <middle> middle                 the usual order
//! SPM        <prefix> <suffix> suffix <middle> prefix middle                 the form that the paper trains jointly with PSM
//! ```
//!
//! before the end-of-text token (Bavarian et al. 2022, arXiv 2207.14255, sections 3 and 3.1). The loss is
//! cross-entropy over all tokens, sentinels included, as in the paper:
//!
//! ```text
//! nll        = -sum over supervised tokens of logp                           per supervised token of the optimizer window
//! ```
//!
//! `logp` and `mask` are `[N]` tokens, aligned to the target. The derivatives are constants.
//!
//! Where this departs from the paper: both cuts are between tokens, not characters (the paper's ablation in section
//! 4.4 finds that characters are better where tokens are words; bytes are characters); and sequences are cut after a
//! text was divided into sequences of the model's context length ("context-level FIM"). [`compose`] draws the cuts by the
//! seed of the call, the row's number and its tokens, so that every pass over the data has others.

mod compose;
pub mod config;

use compose::PLACE;
use config::Config;
use plugin_api::prelude::*;

/// The only term.
const NLL: &str = "nll";

/// Fill in the middle.
pub struct FillInTheMiddle(Config);

impl ObjectivePlugin for FillInTheMiddle {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "Cross-entropy on texts of which a share is rewritten as prefix, suffix and middle: fill in the middle"
                .into(),
            formula: "-sum over all tokens of logp; a share `rate` of the sequences is rewritten to <prefix> prefix <suffix> suffix \
                      <middle> middle (PSM), of these a share `spm_rate` to <prefix> <suffix> suffix <middle> prefix middle (SPM); \
                      the cuts are between tokens, in sequences that already fit into the model's context length; a sequence that the \
                      sentinels would make longer than that loses its last tokens before it is cut"
                .into(),
            paper: "Bavarian et al. 2022, arXiv 2207.14255, sections 3 and 3.1; there cut between characters".into(),
            data: DataKind::TEXT,
            terms: vec![TermSpec::new(
                NLL,
                Normaliser::SUPERVISED_TOKENS,
                "Negative log-likelihood in nats per token, of sequences in either form, sentinels included",
            )],
            metrics: vec![
                mean(metric::PLAIN, "Negative log-likelihood of sequences that were not rewritten, in nats per token"),
                mean(
                    metric::MIDDLE,
                    "Negative log-likelihood of the middles, the end of text included, in nats per token: how well the model fills in",
                ),
                mean(metric::REWRITTEN, "Share of the sequences that are rewritten"),
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
        let Config { prefix_id, suffix_id, middle_id, end_id, begin_id, .. } = &options;
        let sentinels = [("prefix_id", prefix_id), ("suffix_id", suffix_id), ("middle_id", middle_id)];
        let ids = [&sentinels[..], &[("end_id", end_id), ("begin_id", begin_id)]].concat();
        for (i, (key, id)) in ids.iter().enumerate() {
            // One token may both begin and end texts.
            if let Some((other, _)) = sentinels.iter().take(i).find(|(_, other)| other == id) {
                let why =
                    format!("option `{key}`: {id} is also the value of `{other}`; sentinels have ids of their own");
                return Err(Error::new(Code::OPTION, why));
            }
        }
        Ok(Self(options))
    }
}

impl Objective for FillInTheMiddle {
    fn requirements(&self) -> Result<Requirements> {
        let Config { prefix_id, suffix_id, middle_id, .. } = self.0;
        let sentinels = [("prefix_id", prefix_id), ("suffix_id", suffix_id), ("middle_id", middle_id)];
        let reserved = |(option, id): (&str, i64)| Some(GivenNumber::new(u64::try_from(id).ok()?, option));
        Ok(Requirements {
            linear: true,
            reserved_ids: sentinels.into_iter().filter_map(reserved).collect(),
            // The sentinels, a token of the text and its end, of which the last is only predicted.
            least_context: Some(GivenNumber::new(4, "")),
            ..Requirements::reading(["logp"])
        })
    }

    fn compose(&self, rows: &Batch<'_>, seed: u64) -> Result<Option<Batch<'static>>> {
        compose::rewritten(&self.0, rows, seed).map(Some)
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask) = (batch.tape()?, Mask::from(batch.mask()?));
        let (nll, place) = (-batch.var(&tape, "logp")?, tape.constant(batch.get(PLACE)?));
        let (plain, middle) = (mask.and(place.lt(0.5)), mask.and(place.gt(1.5)));
        // A sequence is wholly rewritten or not at all.
        let of_sequences = place.seq_mean(&mask);
        let present = tape.constant(mask.to_f64()).seq_sum(&mask).gt(0.0);
        let rewritten = of_sequences.gt(0.0).and(&present);
        Ok(Loss::new()
            .term(&tape, NLL, 1.0, nll.masked_sum(&mask))?
            .metric(metric::PLAIN, nll.masked_sum(&plain).scalar()?, plain.count() as f64)
            .metric(metric::MIDDLE, nll.masked_sum(&middle).scalar()?, middle.count() as f64)
            .metric(metric::REWRITTEN, rewritten.count() as f64, present.count() as f64))
    }
}

/// Names of the metrics.
mod metric {
    /// Likelihood in ordinary order.
    pub const PLAIN: &str = "nll/plain";
    /// Likelihood of the middles.
    pub const MIDDLE: &str = "nll/middle";
    /// Share of rewritten sequences.
    pub const REWRITTEN: &str = "rewritten";
}

export_objective!("fim", FillInTheMiddle);
