//! Cross-entropy on every supervised token: pre-training on running text, or on the tokens that the mask selects. With logits
//! `x[v]` over a vocabulary of V tokens and target `y`, per token
//!
//! ```text
//! lse           = log sum_v exp x[v]                          log-partition function, log Z
//! logp          = x[y] - lse                                  log-probability of the target
//! lse - mean(x) = (1 / V) sum_v -log p[v]                     cross-entropy of the uniform distribution
//!
//! cross_entropy = (1 - eps) (-logp) + eps (lse - mean(x))     eps = label_smoothing
//! z_loss        = lse^2
//! total         = cross_entropy + z_loss_option * z_loss
//! ```
//!
//! each summed over the N tokens of the micro-batch whose mask is 1 and divided, by the host, by the supervised tokens of
//! the optimizer window. All in nats. Statistics and mask have shape `[N]`, aligned to the target; a masked token adds nothing
//! and its cotangents are exactly 0, whatever its values.
//!
//! The smoothed target gives `1 - eps + eps / V` to `y` and `eps / V` to every other token: PyTorch's and Szegedy's convention,
//! not the one that keeps `1 - eps` for `y` and divides `eps` among the others. It is written with the mean logit, so that the
//! log-probabilities of the whole vocabulary are not needed. The derivatives of the cross-entropy are constants: without a z-loss
//! the head needs no statistics before its backward pass.

use plugin_api::prelude::*;

/// The term with the smoothed target.
const CROSS_ENTROPY: &str = "cross_entropy";
/// The term of the squared log-partition function.
const Z_LOSS: &str = "z_loss";
/// The metric without smoothing.
const NLL: &str = "nll";
/// The metric of the log-partition function.
const LOG_Z: &str = "log_z";

options! {
    /// Options of cross-entropy.
    pub struct Config {
        /// Share of the target that is spread evenly over the vocabulary; at least 0, less than 1.
        label_smoothing: f64 = 0.0, in 0.0..=1.0;
        /// Weight of the squared log-partition function, which keeps logits from drifting; PaLM uses 1e-4, 0 leaves it out.
        z_loss: f64 = 0.0, from 0.0;
    }
}

/// Cross-entropy, with optional label smoothing and z-loss.
pub struct CrossEntropy(Config);

impl ObjectivePlugin for CrossEntropy {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let per_token = |name, meaning| TermSpec::new(name, Normaliser::SUPERVISED_TOKENS, meaning);
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "Cross-entropy on running text, or on any supervised tokens".into(),
            formula: "sum over supervised tokens of (1 - eps) (-logp) + eps (lse - mean_logit) + z_loss lse^2".into(),
            paper: "Label smoothing: Szegedy et al. 2016, arXiv 1512.00567, section 7; z-loss: Chowdhery et al. 2022 \
                    (PaLM), arXiv 2204.02311, section 5"
                .into(),
            data: DataKind::TEXT,
            terms: vec![
                per_token(CROSS_ENTROPY, "Cross-entropy with the smoothed target, in nats"),
                per_token(Z_LOSS, "Square of the log-partition function; only with `z_loss` above 0"),
            ],
            metrics: vec![
                mean(NLL, "Negative log-likelihood of the targets, in nats per token, never smoothed"),
                mean(LOG_Z, "Log-partition function, which the z-loss pulls to 0; only with `z_loss` above 0"),
            ],
            expectations: vec![Expectation {
                quantity: CROSS_ENTROPY.into(),
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

impl Objective for CrossEntropy {
    /// Requests no statistic that the options leave unused: each costs the backend a pass or memory. Only the z-loss, a square, is
    /// not linear.
    fn requirements(&self) -> Result<Requirements> {
        let (smooths, has_z_loss) = (self.0.label_smoothing > 0.0, self.0.z_loss > 0.0);
        let wanted = [("logp", true), ("lse", smooths || has_z_loss), ("mean_logit", smooths)];
        let read = wanted.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name);
        Ok(Requirements { linear: !has_z_loss, ..Requirements::reading(read) })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask, eps) = (batch.tape()?, Mask::from(batch.mask()?), self.0.label_smoothing);
        let (sum, tokens) = (|name| batch.var(&tape, name).map(|x| x.masked_sum(&mask)), mask.count() as f64);
        let nll = 0.0 - sum("logp")?;
        let mut smoothed = (1.0 - eps) * nll;
        if eps > 0.0 {
            smoothed = smoothed + eps * (sum("lse")? - sum("mean_logit")?);
        }
        let loss = Loss::new().term(&tape, CROSS_ENTROPY, 1.0, smoothed)?.metric(NLL, nll.scalar()?, tokens);
        if self.0.z_loss == 0.0 {
            return Ok(loss);
        }
        // On a tape of its own, because a tape names each statistic once.
        let tape = batch.tape()?;
        let log_z = batch.var(&tape, "lse")?;
        let loss = loss.term(&tape, Z_LOSS, self.0.z_loss, log_z.square().masked_sum(&mask))?;
        Ok(loss.metric(LOG_Z, log_z.masked_sum(&mask).scalar()?, tokens))
    }
}

export_objective!("ce", CrossEntropy);
