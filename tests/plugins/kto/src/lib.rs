//! Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8): single answers, each labelled desirable
//! or not, and a frozen reference. For answer y to prompt x
//!
//! ```text
//! ratio(x, y) = sum over y's supervised tokens of logp - reference.logp       log-ratio, in nats
//! z           = max(0, mean over the window of ratio(x, y'))                  y' is the next row's answer; no gradient
//! loss        = desirable_weight   (1 - sigmoid(beta (ratio - z)))            where the answer is desirable
//!             = undesirable_weight (1 - sigmoid(beta (z - ratio)))            where it is not
//! ```
//!
//! per labelled answer of the optimizer window. `compose` adds a mismatched sequence (x, y') to each row: answers are rotated by
//! one row, and a window of one row has none, so that z is 0. z couples the window, so the loss is `coupled`. `logp`,
//! `reference.logp` and `mask` are `[N]`; `column.label` (1 desirable, 0 not) and `column.mismatched` (1 or 0) are `[S]`.
//! Mismatched answers are not learned: their cotangents are exactly 0.

use plugin_api::{batch::names, prelude::*};

/// The column that `compose` adds: 1 for the pairs of a prompt and another row's answer.
const MISMATCHED: &str = "mismatched";
/// The column of labelled rows.
const LABEL: &str = "label";

options! {
    /// Options of KTO.
    pub struct Config {
        /// How sharply the log-ratio counts.
        beta: f64 = 0.1, from 0.0;
        /// Weight of the desirable answers.
        desirable_weight: f64 = 1.0, from 0.0;
        /// Weight of the undesirable answers.
        undesirable_weight: f64 = 1.0, from 0.0;
    }
}

/// KTO; it has no state.
pub struct Kto(Config);

impl ObjectivePlugin for Kto {
    type Options = Config;

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "KTO: answers labelled desirable or not, near a reference".into(),
            formula: "w (1 - sigmoid(s beta (ratio - z))), s 1 for desirable answers and -1 for others, z the mean log-ratio of \
                      mismatched answers, at least 0, without gradient"
                .into(),
            paper: "Ethayarajh et al. 2024, arXiv 2402.01306, equation 8".into(),
            data: DataKind::UNPAIRED,
            terms: vec![TermSpec::new("kto", Normaliser::CUSTOM, "The loss per labelled answer; half the mean weight at first")],
            metrics: vec![
                mean("kl", "z in nats: the mean log-ratio of mismatched answers, at least 0"),
                mean("rewards/desirable", "beta times the log-ratio of the desirable answers"),
                mean("rewards/undesirable", "beta times the log-ratio of the undesirable answers"),
            ],
            coupled: true,
            ..Default::default()
        }
    }

    fn create(options: Config) -> Result<Self> {
        Ok(Self(options))
    }
}

impl Objective for Kto {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements::reading(["logp", names::REFERENCE_LOGP]))
    }

    /// Each row unchanged, then each prompt with the next row's answer.
    fn compose(&self, rows: &Batch<'_>, _seed: u64) -> Result<Option<Batch<'static>>> {
        let (offsets, token, mask) = (rows.offsets()?, rows.get("token")?, rows.mask()?);
        let (row, label) = (rows.get("row")?, rows.column(LABEL)?);
        // Two parts per row: the prompt, then the answer.
        let count = rows.sequences()? / 2;
        let mut composed = Composed { offsets: vec![0.0], ..Composed::default() };
        let rotations = if count > 1 { vec![0, 1] } else { vec![0] };
        for rotation in rotations {
            for index in 0..count {
                let answer = (index + rotation) % count;
                for part in [2 * index, 2 * answer + 1] {
                    composed.token.extend(&token[offsets[part]..offsets[part + 1]]);
                    composed.mask.extend(&mask[offsets[part]..offsets[part + 1]]);
                }
                composed.offsets.push(composed.token.len() as f64);
                composed.row.push(row[2 * index]);
                composed.label.push(label[2 * index]);
                composed.mismatched.push(rotation as f64);
            }
        }
        Ok(Some(composed.batch()))
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let labelled = batch.column(MISMATCHED)?.iter().filter(|m| **m == 0.0).count();
        Ok(vec![("kto".to_owned(), labelled as f64)])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask, config) = (batch.tape()?, batch.mask()?, &self.0);
        let ratio = (batch.var(&tape, "logp")? - batch.var(&tape, names::REFERENCE_LOGP)?).seq_sum(mask);
        let (label, mismatched) = (batch.column(LABEL)?, batch.column(MISMATCHED)?);
        let is = |wanted: fn(f64, f64) -> bool| {
            let bits = label.iter().zip(mismatched).map(|(l, m)| f64::from(u8::from(wanted(*l, *m))));
            Mask::from(&bits.collect::<Vec<f64>>())
        };
        let (desirable, undesirable) = (is(|l, m| m == 0.0 && l == 1.0), is(|l, m| m == 0.0 && l != 1.0));
        let z = ratio.masked_mean(is(|_, m| m == 1.0)).detach().max(0.0);
        let loss = config.desirable_weight * (1.0 - (config.beta * (ratio - z)).sigmoid()).masked_sum(&desirable)
            + config.undesirable_weight * (1.0 - (config.beta * (z - ratio)).sigmoid()).masked_sum(&undesirable);
        let reward = |of: &Mask| (config.beta * ratio).masked_sum(of).scalar();
        Ok(Loss::new()
            .term(&tape, "kto", 1.0, loss)?
            .metric("kl", z.scalar()?, 1.0)
            .metric("rewards/desirable", reward(&desirable)?, desirable.count() as f64)
            .metric("rewards/undesirable", reward(&undesirable)?, undesirable.count() as f64))
    }
}

/// The sequences of a window during composition.
#[derive(Default)]
struct Composed {
    offsets: Vec<f64>,
    token: Vec<f64>,
    mask: Vec<f64>,
    row: Vec<f64>,
    label: Vec<f64>,
    mismatched: Vec<f64>,
}

impl Composed {
    fn batch(self) -> Batch<'static> {
        let column = |name: &str| format!("{}{name}", names::COLUMN);
        Batch::new()
            .with(names::OFFSETS, Scope::BATCH, self.offsets)
            .with("token", Scope::TOKEN, self.token)
            .with(names::MASK, Scope::TOKEN, self.mask)
            .with("row", Scope::SEQUENCE, self.row)
            .with(column(LABEL), Scope::SEQUENCE, self.label)
            .with(column(MISMATCHED), Scope::SEQUENCE, self.mismatched)
    }
}

export_objective!("kto", Kto);
