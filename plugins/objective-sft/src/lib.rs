//! Instruction tuning: cross-entropy on the completion's tokens, given the prompt. With logits `x[v]` over a vocabulary of V tokens
//! and target `y`, per token
//!
//! ```text
//! lse        = log sum_v exp x[v]                                   log-partition function
//! logp       = x[y] - lse                                           log-probability of the target
//! completion = (1 - eps) (-logp) + eps (lse - mean(x))              eps = label_smoothing
//! ```
//!
//! summed over the tokens of the micro-batch whose mask is 1: those of the completions, including the end-of-text token that
//! closes each of them. The host makes the mask from the rows; prompts have 0 there, add nothing, and their cotangents are exactly
//! 0, whatever their values are. The host divides by the completion tokens of the optimizer window, so every token has the same
//! weight and a long completion more than a short one (the convention of TRL and transformers). In nats; arrays have shape `[N]`,
//! aligned to the target.
//!
//! With `attention = "prefix"` the model is a prefix language model (Raffel et al. 2020, arXiv 1910.10683, section 3.2.1): the
//! tokens of the prompt, all that precede the first supervised one, attend to each other in both directions, those after them
//! causally. The loss is the same. The saved model records the mask, and evaluation and generation follow it.
//!
//! The smoothed target is PyTorch's: `1 - eps + eps / V` for `y`, `eps / V` for every other token. The derivatives are constants,
//! so the head needs no statistics before its backward pass.

use plugin_api::{manifest::AttentionMask, prelude::*};

/// The only term.
const COMPLETION: &str = "completion";
/// The metric per token, without smoothing.
const NLL: &str = "nll";
/// The metric per row.
const COMPLETION_LOGP: &str = "completion_logp";

options! {
    /// Options of instruction tuning.
    pub struct Config {
        /// Share of the target that is spread evenly over the vocabulary; at least 0, less than 1.
        label_smoothing: f64 = 0.0, in 0.0..=1.0;
        /// What a token attends to: `causal` (the tokens before it) or `prefix` (also all tokens of the prompt).
        attention: String = "causal".into(), of ["causal", "prefix"];
    }
}

/// Supervised fine-tuning on prompts with completions.
pub struct SupervisedFineTuning(Config);

impl ObjectivePlugin for SupervisedFineTuning {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "Cross-entropy on the completion alone, given the prompt: instruction tuning".into(),
            formula: "sum over the completion's tokens, its end-of-text token included, of \
                      (1 - eps) (-logp) + eps (lse - mean_logit)"
                .into(),
            paper: "Ouyang et al. 2022 (InstructGPT), arXiv 2203.02155, section 3.5; label smoothing: Szegedy et al. 2016, \
                    arXiv 1512.00567, section 7"
                .into(),
            data: DataKind::PROMPT_COMPLETION,
            terms: vec![TermSpec::new(
                COMPLETION,
                Normaliser::SUPERVISED_TOKENS,
                "Cross-entropy of the completion's tokens with the smoothed target, in nats; long completions weigh more",
            )],
            metrics: vec![
                mean(NLL, "Negative log-likelihood of the completion, in nats per token, never smoothed"),
                mean(
                    COMPLETION_LOGP,
                    "Log-probability of a whole completion given its prompt, in nats, mean over the rows",
                ),
            ],
            expectations: vec![Expectation {
                quantity: COMPLETION.into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised, so that the logits are nearly uniform".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        if options.label_smoothing < 1.0 {
            return Ok(Self(options));
        }
        let why = "option `label_smoothing`: 1 leaves nothing of the target; it must be below 1";
        Err(Error::new(Code::OPTION, why))
    }
}

impl Objective for SupervisedFineTuning {
    /// Requests no statistic that the options leave unused: each costs the backend a pass or memory.
    fn requirements(&self) -> Result<Requirements> {
        let smoothing = ["lse", "mean_logit"].into_iter().filter(|_| self.0.label_smoothing > 0.0);
        let attention = AttentionMask(self.0.attention.clone().into());
        Ok(Requirements { linear: true, attention, ..Requirements::reading(["logp"].into_iter().chain(smoothing)) })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask, eps) = (batch.tape()?, Mask::from(batch.mask()?), self.0.label_smoothing);
        let sum = |name| batch.var(&tape, name).map(|x| x.masked_sum(&mask));
        let logp = sum("logp")?;
        let mut completion = (1.0 - eps) * (0.0 - logp);
        if eps > 0.0 {
            completion = completion + eps * sum("lse")? - eps * sum("mean_logit")?;
        }
        // A row without supervised tokens has no completion here.
        let rows = tape.constant(mask.to_f64()).seq_sum(&mask).gt(0.0).count();
        Ok(Loss::new()
            .term(&tape, COMPLETION, 1.0, completion)?
            .metric(NLL, 0.0 - logp.scalar()?, mask.count() as f64)
            .metric(COMPLETION_LOGP, logp.scalar()?, rows as f64))
    }
}

export_objective!("sft", SupervisedFineTuning);
