//! Kahneman-Tversky optimisation: single answers, each labelled desirable or not, and a frozen reference. For answer y
//! to prompt x
//!
//! ```text
//! ratio(x, y) = sum over y's supervised tokens of logp - reference.logp            log-ratio, in nats
//! z           = max(0, mean over the window of ratio(x, y'))                       reference point; no gradient
//! v           = sigmoid(beta (ratio - z))   where y is desirable,                  value of an answer
//!               sigmoid(beta (z - ratio))   where it is not
//! kto         = desirable_weight (1 - v)  or  undesirable_weight (1 - v)
//! ```
//!
//! per labelled answer of the optimizer window (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8). z estimates the
//! divergence from the reference: y' is the answer of the window's next row. As in TRL the answers are rotated
//! by one row: [`compose`] adds to the rows a *mismatched* sequence (x, y') for each of them, y' being the answer of
//! the next row. A window of one row has none, so that z is 0. TRL takes the mean over a micro-batch, here it is over
//! the whole window, so that the cut does not matter.
//!
//! `loss = "apo-zero-unpaired"` (D'Oosterlinck et al. 2024, arXiv 2408.06266) has z = 0 and needs no mismatched
//! sequences.
//!
//! `logp`, `reference.logp` and `mask` are `[N]` tokens, aligned to the target; `side` (1 desirable, 0 not) and
//! `mismatched` (1 or 0) are `[S]` sequences. Mismatched sequences do not count in the normaliser and are not learned:
//! their cotangents are exactly 0.
//!
//! z depends on the whole window, so the loss is `coupled`: the host runs the window forward, calls `loss` once and
//! replays. With `window_statistics` `prepare` would compute z from the same additional forward pass; then z would be
//! hidden in an array, and no law could find a reference point with a gradient.

mod compose;

use compose::MISMATCHED;
use plugin_api::{batch::names, prelude::*};

/// The term.
const KTO: &str = "kto";
/// The name under which z is held constant.
const REFERENCE_POINT: &str = "reference_point";
/// The loss that has a reference point.
const WITH_POINT: &str = "kto";

options! {
    /// Options of KTO.
    pub struct Config {
        /// `kto`: the reference point is the mean log-ratio of mismatched answers; `apo-zero-unpaired`: it is 0.
        loss: String = "kto".into(), of ["kto", "apo-zero-unpaired"];
        /// Scale of the implicit reward, above 0: larger keeps the policy nearer to the reference.
        beta: f64 = 0.1, from 0.0;
        /// Weight of the desirable answers. The paper advises weights for which desirable answers have 1 to 4/3 times
        /// the total weight of the undesirable ones.
        desirable_weight: f64 = 1.0, from 0.0;
        /// Weight of the undesirable answers.
        undesirable_weight: f64 = 1.0, from 0.0;
    }
}

/// KTO.
pub struct Kto(Config);

impl ObjectivePlugin for Kto {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Kahneman-Tversky optimisation: answers labelled desirable or not, near a reference".into(),
            formula: "w (1 - sigmoid(s beta (ratio - z))), s = 1 and w = desirable_weight for desirable answers, s = -1 and w = \
                      undesirable_weight for others; ratio the sum of logp - reference.logp over an answer; by `loss`:\n  kto: z is \
                      the window's mean ratio of mismatched answers, at least 0, without gradient\n  apo-zero-unpaired: z = 0"
                .into(),
            paper: "Ethayarajh et al. 2024, arXiv 2402.01306, equation 8; apo-zero-unpaired: D'Oosterlinck et al. 2024, arXiv \
                    2408.06266, as in TRL"
                .into(),
            data: DataKind::UNPAIRED,
            terms: vec![TermSpec::new(
                KTO,
                Normaliser::SEQUENCES,
                "Weighted distance of an answer's value from 1; half the mean weight where the policy is the reference",
            )],
            metrics: metrics(),
            expectations: vec![Expectation {
                quantity: metric::VALUE.into(),
                value: "0.5".into(),
                tolerance: 0.05,
                when: "the policy is the reference, so that every log-ratio is 0".into(),
            }],
            stop_gradients: vec![StopGradient::new(
                REFERENCE_POINT,
                "z, the mean log-ratio of mismatched answers, at least 0; 0 in apo-zero-unpaired",
            )],
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        if options.beta > 0.0 {
            return Ok(Self(options));
        }
        Err(Error::new(Code::OPTION, format!("option `beta`: {} is not above 0", options.beta)))
    }
}

fn metrics() -> Vec<MetricSpec> {
    let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
    vec![
        mean(metric::VALUE, "Value of an answer, unweighted: 0.5 where the policy is the reference, 1 at best"),
        mean(metric::KL, "The reference point z in nats per answer, before training 0; only with `loss = \"kto\"`"),
        mean(metric::DESIRABLE, "Implicit reward of the desirable answers, beta times their log-ratio"),
        mean(metric::UNDESIRABLE, "Implicit reward of the undesirable answers"),
        mean(
            metric::LOGPS_DESIRABLE,
            "Log-probability of a desirable answer, summed over its tokens, in nats; it may fall while its reward exceeds that of \
             the undesirable ones",
        ),
        mean(metric::LOGPS_UNDESIRABLE, "Log-probability of an undesirable answer, summed over its tokens, in nats"),
    ]
}

impl Kto {
    fn has_point(&self) -> bool {
        self.0.loss == WITH_POINT
    }
}

impl Objective for Kto {
    fn requirements(&self) -> Result<Requirements> {
        let coupled = self.has_point();
        Ok(Requirements { coupled, ..Requirements::reading(["logp", names::REFERENCE_LOGP]) })
    }

    fn compose(&self, rows: &Batch<'_>, _seed: u64) -> Result<Option<Batch<'static>>> {
        self.has_point().then(|| compose::with_mismatched(rows)).transpose()
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask, config) = (batch.tape()?, batch.mask()?, &self.0);
        let policy = batch.var(&tape, "logp")?;
        let ratio = (policy - batch.var(&tape, names::REFERENCE_LOGP)?).seq_sum(mask);
        let mismatched = match self.has_point() {
            true => Mask::from(batch.get(MISMATCHED)?),
            false => tape.constant(vec![0.0; batch.sequences()?]).gt(0.0),
        };
        let side = tape.constant(batch.get(names::SIDE)?);
        let desirable = mismatched.negate().and(side.gt(0.5));
        let undesirable = mismatched.negate().and(side.le(0.5));

        let z = ratio.masked_mean(&mismatched).relu().detach_as(REFERENCE_POINT);
        let (gain, loss) = ((config.beta * (ratio - z)).sigmoid(), (config.beta * (z - ratio)).sigmoid());
        let kto = config.desirable_weight * (1.0 - gain).masked_sum(&desirable)
            + config.undesirable_weight * (1.0 - loss).masked_sum(&undesirable);

        let value = gain.masked_sum(&desirable) + loss.masked_sum(&undesirable);
        let labelled = (desirable.count() + undesirable.count()) as f64;
        let mut all = Loss::new().term(&tape, KTO, 1.0, kto)?.metric(metric::VALUE, value.scalar()?, labelled);
        if self.has_point() {
            all = all.metric(metric::KL, z.scalar()?, f64::from(u8::from(mismatched.count() > 0)));
        }
        let logp = policy.seq_sum(mask);
        for (name, values, of) in [
            (metric::DESIRABLE, config.beta * ratio, &desirable),
            (metric::UNDESIRABLE, config.beta * ratio, &undesirable),
            (metric::LOGPS_DESIRABLE, logp, &desirable),
            (metric::LOGPS_UNDESIRABLE, logp, &undesirable),
        ] {
            all = all.metric(name, values.masked_sum(of).scalar()?, of.count() as f64);
        }
        Ok(all)
    }
}

/// Names of the metrics.
mod metric {
    /// Value of an answer.
    pub const VALUE: &str = "value";
    /// The reference point.
    pub const KL: &str = "kl";
    /// Reward of the desirable answers.
    pub const DESIRABLE: &str = "rewards/desirable";
    /// Reward of the undesirable answers.
    pub const UNDESIRABLE: &str = "rewards/undesirable";
    /// Log-probability of the desirable answers.
    pub const LOGPS_DESIRABLE: &str = "logps/desirable";
    /// Log-probability of the undesirable answers.
    pub const LOGPS_UNDESIRABLE: &str = "logps/undesirable";
}

export_objective!("kto", Kto);
