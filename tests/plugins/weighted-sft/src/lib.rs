//! Supervised fine-tuning with a weight per row: with w the row's column `weight`,
//!
//! ```text
//! completion = sum over the completions' tokens of -w logp
//! ```
//!
//! divided by the weights of the supervised tokens of the optimizer window, so that equal weights give plain fine-tuning. `logp`
//! and `mask` are `[N]`, `column.weight` is `[S]`. A masked token adds nothing and its cotangent is exactly 0.

use plugin_api::prelude::*;

/// The term, and the column that it reads.
const COMPLETION: &str = "completion";
const WEIGHT: &str = "weight";

/// Weighted fine-tuning; it has no options and no state.
pub struct WeightedSft;

impl ObjectivePlugin for WeightedSft {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy of completions, each row weighted by its column `weight`".into(),
            formula: "sum of -w logp over sum of w, over the completions' tokens".into(),
            data: DataKind::PROMPT_COMPLETION,
            terms: vec![TermSpec::new(
                COMPLETION,
                Normaliser::CUSTOM,
                "Weighted cross-entropy of the completions, in nats",
            )],
            expectations: vec![Expectation {
                quantity: COMPLETION.into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised".into(),
            }],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Self)
    }
}

/// The sum of the weights of the supervised tokens.
fn weights(batch: &Batch<'_>) -> Result<f64> {
    let tape = batch.tape()?;
    Ok(tape.constant(batch.column(WEIGHT)?).to_tokens().masked_sum(batch.mask()?).scalar()?)
}

impl Objective for WeightedSft {
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        Ok(vec![(COMPLETION.to_owned(), weights(batch)?)])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let weight = tape.constant(batch.column(WEIGHT)?).to_tokens();
        let nll = -(weight * batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        Loss::new().term(&tape, COMPLETION, 1.0, nll)
    }
}

export_objective!("weighted-sft", WeightedSft);
