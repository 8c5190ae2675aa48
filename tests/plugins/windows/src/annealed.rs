//! Cross-entropy of running text that is weighted less from step to step: `-(1 - (step - 1) / steps) logp`, per supervised token.

use plugin_api::{batch::names, prelude::*};

/// The objective; it has no state.
pub struct Annealed;

/// The factor of a batch.
fn factor(batch: &Batch<'_>) -> Result<f64> {
    let number = |name: &str| Ok::<_, Error>(batch.get(name)?.first().copied().unwrap_or(f64::NAN));
    Ok(1.0 - (number(names::STEP)? - 1.0) / number(names::STEPS)?)
}

impl ObjectivePlugin for Annealed {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        let mean = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            metrics: vec![
                mean("factor", "The factor of the step, as `loss` reads it"),
                mean("prepared", "The same, as `prepare` reads it"),
            ],
            ..crate::description::manifest(
                "Cross-entropy with a falling weight",
                "-(1 - (step - 1) / steps) logp",
                DataKind::TEXT,
                Normaliser::SUPERVISED_TOKENS,
            )
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Self)
    }
}

impl Objective for Annealed {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements { linear: true, ..Requirements::default() })
    }

    fn prepare(&mut self, window: &Batch<'_>) -> Result<Batch<'static>> {
        Ok(Batch::new().with("factor", Scope::BATCH, vec![factor(window)?]))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let (tape, mask, factor) = (batch.tape()?, batch.mask()?, factor(batch)?);
        let nll = -batch.var(&tape, "logp")?.masked_sum(mask);
        let tokens: f64 = mask.iter().sum();
        let prepared: f64 = batch.get("factor")?.iter().sum();
        Ok(Loss::new().term(&tape, "nll", 1.0, factor * nll)?.metric("factor", factor * tokens, tokens).metric(
            "prepared",
            prepared * tokens,
            tokens,
        ))
    }
}
