//! REINFORCE with the batch's mean reward as its baseline, and with cotangents of the wrong sign.

use plugin_api::{batch::names, prelude::*};

/// REINFORCE with a mistake.
pub struct Reinforce;

impl ObjectivePlugin for Reinforce {
    type Options = ();

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "REINFORCE with cotangents of the wrong sign, for tests".into(),
            formula: "sum over supervised tokens of -A logp, A the reward less its mean".into(),
            data: DataKind::PROMPT,
            terms: vec![TermSpec::new("policy", Normaliser::SUPERVISED_TOKENS, "The negated surrogate")],
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Reinforce)
    }
}

impl Objective for Reinforce {
    fn prepare(&mut self, rollout: &Batch<'_>) -> Result<Batch<'static>> {
        let reward = rollout.get(names::REWARD)?;
        let mean = reward.iter().sum::<f64>() / reward.len().max(1) as f64;
        let advantage: Vec<f64> = reward.iter().map(|reward| reward - mean).collect();
        Ok(Batch::new().with("advantage", Scope::SEQUENCE, advantage))
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let advantage = batch.var(&tape, "advantage")?.to_tokens();
        let sum = -(advantage * batch.var(&tape, "logp")?).masked_sum(batch.mask()?);
        let mut loss = Loss::new().term(&tape, "policy", 1.0, sum)?;
        let cotangents = loss.terms.iter_mut().flat_map(|term| &mut term.cotangents);
        cotangents.flat_map(|(_, values)| values).for_each(|cotangent| *cotangent = 0.0 - *cotangent);
        Ok(loss)
    }
}

export_objective!("wrong-sign-of-advantage", Reinforce);
