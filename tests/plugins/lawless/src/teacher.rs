//! A loss that reads a model in a role that the host does not have.

use plugin_api::prelude::*;

/// Cross-entropy minus the tutor's.
pub struct Taught;

impl ObjectivePlugin for Taught {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy less that of a tutor, for tests".into(),
            formula: "sum over supervised tokens of tutor.logp - logp".into(),
            terms: vec![TermSpec::new("excess", Normaliser::SUPERVISED_TOKENS, "In nats")],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Taught)
    }
}

impl Objective for Taught {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements::reading(["logp", "tutor.logp"]))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let excess = (batch.var(&tape, "tutor.logp")? - batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        Loss::new().term(&tape, "excess", 1.0, excess)
    }
}

export_objective!("taught", Taught);
