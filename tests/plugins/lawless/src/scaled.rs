//! Cross-entropy times an option that has no default: the declared expectation holds only if the option is 1.

use plugin_api::{
    manifest::OptionSpec,
    options::{self, OptionMap, OptionSet, OptionValue},
    prelude::*,
};

/// An option that must be given.
pub struct Scale(f64);

impl OptionSet for Scale {
    fn specs() -> Vec<OptionSpec> {
        let (name, kind) = ("scale".to_owned(), <f64 as OptionValue>::KIND.to_owned());
        let meaning = "Factor on the loss".to_owned();
        vec![OptionSpec { name, kind, default: Default::default(), min: None, max: None, choices: Vec::new(), meaning }]
    }

    fn parse(values: &OptionMap) -> Result<Self> {
        let specs = Self::specs();
        options::refuse_unknown(&specs, values)?;
        Ok(Scale(options::read(&specs[0], values)?))
    }
}

/// Cross-entropy times `scale`.
pub struct Scaled(Scale);

impl ObjectivePlugin for Scaled {
    type Options = Scale;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "Cross-entropy times an option without default, for tests".into(),
            formula: "-scale logp".into(),
            terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "Scaled, in nats")],
            expectations: vec![Expectation {
                quantity: "nll".into(),
                value: "ln_vocab".into(),
                tolerance: 0.1,
                when: "the weights are freshly initialised".into(),
            }],
            ..Default::default()
        }
    }

    fn create(options: Scale) -> Result<Self> {
        Ok(Scaled(options))
    }
}

impl Objective for Scaled {
    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let nll = -self.0.0 * batch.var(&tape, "logp")?.masked_sum(batch.mask()?);
        Loss::new().term(&tape, "nll", 1.0, nll)
    }
}

export_objective!("scaled", Scaled);
