//! The hand-derived cotangents compared with those of the tape.

use super::{all_options, create};
use objective_sft::{SupervisedFineTuning, config::Config};
use plugin_api::{options::OptionSet, prelude::*};
use plugin_api_laws::objective::{Generator, Values};

/// Instruction tuning as written by an author with few tokens.
fn on_tape(config: &Config, batch: &Batch<'_>) -> Result<Loss> {
    let (tape, mask, eps) = (batch.tape()?, batch.mask()?, config.label_smoothing);
    let mut token = -(1.0 - eps) * batch.var(&tape, "logp")?;
    if eps > 0.0 {
        token = token + eps * (batch.var(&tape, "lse")? - batch.var(&tape, "mean_logit")?);
    }
    Loss::new().term(&tape, "completion", 1.0, token.masked_sum(mask))
}

#[test]
fn by_hand_and_by_tape_are_the_same() {
    let (generator, manifest) = (Generator::new(5).with_sizes(20, 30), SupervisedFineTuning::manifest());
    for options in all_options() {
        let (config, sft) = (Config::parse(&options).unwrap(), create(&options).unwrap());
        let statistics = sft.requirements().unwrap().statistics;
        let batch = generator.fill(&generator.data(&manifest, 1), &manifest, &statistics, Values::Random(1)).unwrap();
        assert!(batch.mask().unwrap().contains(&0.0), "no prompt, no test");
        let (hand, tape) = (sft.loss(&batch).unwrap(), on_tape(&config, &batch).unwrap());
        let (hand, tape) = (&hand.terms[0], &tape.terms[0]);
        assert!((hand.sum - tape.sum).abs() < 1e-10, "{options:?}: {} on the tape {}", hand.sum, tape.sum);
        for (name, expected) in &tape.cotangents {
            let found = hand.cotangents.iter().find(|(n, _)| n == name).map(|(_, c)| c.as_slice()).unwrap_or_default();
            let near = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14);
            assert!(near, "{options:?}: by `{name}`\nby hand {found:?}\non tape {expected:?}");
        }
    }
}
