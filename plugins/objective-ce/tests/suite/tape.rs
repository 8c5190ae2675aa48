//! The hand-derived cotangents compared with the same loss on the tape.

use super::{all_options, create};
use objective_ce::{CrossEntropy, config::Config};
use plugin_api::{options::OptionSet, prelude::*};
use plugin_api_laws::objective::{Generator, Values};

/// The doc comment's formula, as written by an author with few tokens.
fn on_tape(config: &Config, batch: &Batch<'_>) -> Result<Loss> {
    let (tape, mask, eps) = (batch.tape()?, batch.mask()?, config.label_smoothing);
    let logp = batch.var(&tape, "logp")?;
    let mut token = -(1.0 - eps) * logp;
    let lse = if batch.find("lse").is_some() { Some(batch.var(&tape, "lse")?) } else { None };
    if let Some(lse) = lse.filter(|_| eps > 0.0) {
        token = token + eps * (lse - batch.var(&tape, "mean_logit")?);
    }
    let loss = Loss::new().term(&tape, "cross_entropy", 1.0, token.masked_sum(mask))?;
    match lse.filter(|_| config.z_loss > 0.0) {
        Some(lse) => loss.term(&tape, "z_loss", config.z_loss, lse.square().masked_sum(mask)),
        None => Ok(loss),
    }
}

#[test]
fn by_hand_and_by_tape_are_the_same() {
    let (generator, manifest) = (Generator::new(5).with_sizes(20, 30), CrossEntropy::manifest());
    for options in all_options() {
        let (config, ce) = (Config::parse(&options).unwrap(), create(&options).unwrap());
        let statistics = ce.requirements().unwrap().statistics;
        let batch = generator.fill(&generator.data(&manifest, 1), &manifest, &statistics, Values::Random(1)).unwrap();
        let (hand, tape) = (ce.loss(&batch).unwrap(), on_tape(&config, &batch).unwrap());
        assert_eq!(hand.terms.len(), tape.terms.len());
        for (h, t) in hand.terms.iter().zip(&tape.terms) {
            assert_eq!((&h.name, h.coefficient), (&t.name, t.coefficient));
            assert!((h.sum - t.sum).abs() < 1e-10, "{options:?}: {} is {}, on the tape {}", h.name, h.sum, t.sum);
            // The tape also lists statistics that a term does not depend on, with zeros.
            for (name, expected) in &t.cotangents {
                let found = h.cotangents.iter().find(|(n, _)| n == name).map(|(_, c)| c.clone());
                let found = found.unwrap_or_else(|| vec![0.0; expected.len()]);
                let near =
                    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14);
                assert!(near, "{options:?}: `{}` by `{name}`\nby hand {found:?}\non tape {expected:?}", h.name);
            }
        }
    }
}
