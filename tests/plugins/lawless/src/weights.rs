//! Cross-entropy whose own normaliser does not add up over micro-batches.

use plugin_api::prelude::*;

/// Cross-entropy with a mistake in `weigh`.
pub struct SquaredWeight;

impl ObjectivePlugin for SquaredWeight {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy divided by the number of tokens squared, for tests".into(),
            formula: "sum over supervised tokens of -logp, divided by their number squared".into(),
            terms: vec![TermSpec::new("nll", Normaliser::CUSTOM, "In nats")],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(SquaredWeight)
    }
}

impl Objective for SquaredWeight {
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        Ok(vec![("nll".into(), batch.mask()?.iter().sum::<f64>().powi(2))])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = -batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    }
}

export_objective!("squared-weight", SquaredWeight);
