//! A loss in the manner of KTO without a reference: labelled answers, and prompts with another row's answer that only estimate a
//! constant. For an answer y with the weighted log-probability r = sum of weight logp over its supervised tokens
//!
//! ```text
//! z    = mean of r over the window's mismatched answers       in `prepare`, from the statistics of the window
//! loss = 1 - sigmoid(s (r - z) / 10)                           s 1 where the label is 1, else -1; per sequence that counts
//! ```
//!
//! `compose` returns each row, and each prompt with the next row's answer, which has `counted` 0. It attaches `weight` to each
//! token, a number that depends on the token alone, so that `loss` can tell whether it stands beside its own target.

use plugin_api::{batch::names, groups::sequence_sum, prelude::*};

/// The objective; it has no state.
pub struct Mismatched;

/// The weight of a token.
fn weight_of(id: f64) -> f64 {
    1.0 + (id % 7.0) / 10.0
}

/// The weights of a batch.
fn weights<'a>(batch: &'a Batch<'_>) -> Result<&'a [f64]> {
    let (weight, target, mask) = (batch.get("weight")?, batch.get(names::TARGET)?, batch.mask()?);
    match (0..weight.len()).find(|n| mask[*n] == 1.0 && weight[*n] != weight_of(target[*n])) {
        Some(n) => Err(Error::new(Code::ARRAY, format!("`weight`[{n}] is that of another token"))),
        None => Ok(weight),
    }
}

impl ObjectivePlugin for Mismatched {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            metrics: vec![
                MetricSpec::new("z", Reduction::MEAN, "The constant, in weighted nats"),
                MetricSpec::new("mean_loss", Reduction::MEAN, "The loss per sequence that counts"),
            ],
            ..crate::description::manifest(
                "Labelled answers compared with mismatched ones",
                "1 - sigmoid(s (r - z) / 10), z the mean r of mismatched answers",
                DataKind::UNPAIRED,
                Normaliser::SEQUENCES,
            )
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Self)
    }
}

impl Objective for Mismatched {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { window_statistics: true, ..Requirements::default() })
    }

    fn compose(&self, rows: &Batch<'_>, _seed: u64) -> Result<Option<Batch<'static>>> {
        let (offsets, token, mask) = (rows.offsets()?, rows.get("token")?, rows.mask()?);
        let (row, label) = (rows.get("row")?, rows.column("label")?);
        // Two parts per row: the prompt, then the answer.
        let count = rows.sequences()? / 2;
        let (mut ends, mut tokens, mut masks) = (vec![0.0], Vec::new(), Vec::new());
        let (mut owners, mut labels, mut counted) = (Vec::new(), Vec::new(), Vec::new());
        for (index, shift) in (0..count).flat_map(|index| [(index, 0), (index, 1)]) {
            for part in [2 * index, 2 * ((index + shift) % count) + 1] {
                tokens.extend(&token[offsets[part]..offsets[part + 1]]);
                masks.extend(&mask[offsets[part]..offsets[part + 1]]);
            }
            ends.push(tokens.len() as f64);
            owners.push(row[2 * index]);
            labels.push(label[2 * index]);
            counted.push(1.0 - shift as f64);
        }
        let weight: Vec<f64> = tokens.iter().map(|id| weight_of(*id)).collect();
        let batch = Batch::new().with(names::OFFSETS, Scope::BATCH, ends);
        let batch = batch.with("token", Scope::TOKEN, tokens).with(names::MASK, Scope::TOKEN, masks);
        let batch = batch.with("row", Scope::SEQUENCE, owners).with("column.label", Scope::SEQUENCE, labels);
        Ok(Some(batch.with(names::COUNTED, Scope::SEQUENCE, counted).with("weight", Scope::TOKEN, weight)))
    }

    fn prepare(&mut self, window: &Batch<'_>) -> Result<Batch<'static>> {
        let weighted: Vec<f64> = weights(window)?.iter().zip(window.get("logp")?).map(|(w, x)| w * x).collect();
        let sums = sequence_sum(&weighted, window.mask()?, &window.offsets()?);
        let other = sums.iter().zip(window.get(names::COUNTED)?).filter(|(_, counted)| **counted == 0.0);
        let (sum, count) = other.fold((0.0, 0.0), |(sum, count), (x, _)| (sum + x, count + 1.0));
        Ok(Batch::new().with("z", Scope::BATCH, vec![sum / f64::max(count, 1.0)]))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, counted) = (batch.tape()?, batch.get(names::COUNTED)?);
        let z = batch.get("z")?.iter().sum::<f64>();
        let r = (tape.constant(weights(batch)?.to_vec()) * batch.var(&tape, "logp")?).seq_sum(batch.mask()?);
        let sign: Vec<f64> = batch.column("label")?.iter().map(|label| 2.0 * label - 1.0).collect();
        let loss = (1.0 - (0.1 * tape.constant(sign) * (r - z)).sigmoid()).masked_sum(counted);
        let sequences: f64 = counted.iter().sum();
        let sum = loss.scalar()?;
        Ok(Loss::new().term(&tape, "nll", 1.0, loss)?.metric("z", z * sequences, sequences).metric(
            "mean_loss",
            sum,
            sequences,
        ))
    }
}
