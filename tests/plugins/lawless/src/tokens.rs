//! Cross-entropy per token with one mistake in its mathematics, and one that is right and reads a column.

use plugin_api::{objective::Term, prelude::*};

/// The mistake.
mod wrong {
    /// The cotangents have the other sign.
    pub const COTANGENT_SIGN: u8 = 1;
    /// The loss has the other sign and its cotangents agree with it, so that training raises the cross-entropy.
    pub const SIGN: u8 = 2;
    /// A mean instead of a sum.
    pub const MEAN: u8 = 3;
    /// Nothing depends on the model.
    pub const FLAT: u8 = 4;
    /// Ends the process in its first loss.
    pub const EXIT: u8 = 5;
    /// Cotangents that are not numbers.
    pub const NAN: u8 = 6;
}

/// Cross-entropy with a mistake.
pub struct Tokens<const WRONG: u8>;

impl<const WRONG: u8> ObjectivePlugin for Tokens<WRONG> {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy with a mistake, for tests".into(),
            formula: "sum over supervised tokens of -logp".into(),
            terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "Negative log-likelihood, in nats")],
            expectations: vec![Expectation {
                quantity: "nll".into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised".into(),
            }],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Tokens)
    }
}

impl<const WRONG: u8> Objective for Tokens<WRONG> {
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        if WRONG == wrong::EXIT {
            std::process::exit(0);
        }
        let (mask, logp) = (batch.mask()?, batch.get("logp")?);
        let count = mask.iter().sum::<f64>();
        let supervised = mask.iter().zip(logp).filter(|(m, _)| **m == 1.0).map(|(_, logp)| -logp);
        let mut sum = supervised.sum::<f64>() + 0.0;
        let mut each = -1.0;
        match WRONG {
            wrong::COTANGENT_SIGN => each = 1.0,
            wrong::SIGN => (sum, each) = (0.0 - sum, 1.0),
            wrong::MEAN => (sum, each) = (sum / count.max(1.0), -1.0 / count.max(1.0)),
            wrong::FLAT => (sum, each) = (count, 0.0),
            wrong::NAN => each = f64::NAN,
            _ => {}
        }
        let cotangents = mask.iter().map(|m| if *m == 1.0 { each } else { 0.0 }).collect();
        let term = Term { name: "nll".into(), coefficient: 1.0, sum, cotangents: vec![("logp".into(), cotangents)] };
        Ok(Loss { terms: vec![term], metrics: Vec::new() })
    }
}

export_objective!("wrong-cotangent-sign", Tokens<{ wrong::COTANGENT_SIGN }>);
export_objective!("wrong-sign", Tokens<{ wrong::SIGN }>);
export_objective!("mean-for-sum", Tokens<{ wrong::MEAN }>);
export_objective!("flat", Tokens<{ wrong::FLAT }>);
export_objective!("exits-in-loss", Tokens<{ wrong::EXIT }>);
export_objective!("nan-cotangents", Tokens<{ wrong::NAN }>);

/// Completions weighted by a column of the data; right.
pub struct ByColumn;

impl ObjectivePlugin for ByColumn {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Completions weighted by the column `weight`, for tests".into(),
            formula: "sum over supervised tokens of -w logp, divided by the sum of w".into(),
            data: DataKind::PROMPT_COMPLETION,
            terms: vec![TermSpec::new("nll", Normaliser::CUSTOM, "Weighted negative log-likelihood, in nats")],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(ByColumn)
    }
}

impl Objective for ByColumn {
    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let tape = batch.tape()?;
        let weight = tape.constant(batch.column("weight")?).to_tokens();
        Ok(vec![("nll".into(), weight.masked_sum(batch.mask()?).scalar()?)])
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let weight = tape.constant(batch.column("weight")?).to_tokens();
        let nll = -(weight * batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    }
}

export_objective!("by-column", ByColumn);
