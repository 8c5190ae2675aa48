//! The sum and derivatives of the doc comment's formula, derived by hand: to the last bit.

use super::{Plugin, all_options, support::create};
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, Values};

/// Catches a smoothing in another order of sums, which changes the last bits of every run, and a cotangent that is not exact.
#[test]
fn the_tape_matches_derivatives_derived_by_hand() {
    let (generator, manifest) = (Generator::new(5).with_sizes(20, 30), Plugin::manifest());
    for given in all_options() {
        let sft = create::<Plugin>(given.clone()).unwrap();
        let statistics = sft.requirements().unwrap().statistics;
        let batch = generator.fill(&generator.data(&manifest, 1), &statistics, Values::Random(1)).unwrap();
        let mask = batch.mask().unwrap();
        assert!(mask.contains(&0.0), "no prompt, no test");
        let term = &sft.loss(&batch).unwrap().terms[0];
        let eps = given["label_smoothing"].as_f64().unwrap_or(0.0);
        let mut sum = 0.0;
        for ((name, found), by_token) in term.cotangents.iter().zip([eps - 1.0, eps, -eps]) {
            let tokens = || mask.iter().zip(batch.get(name).unwrap()).filter(|(m, _)| **m == 1.0);
            sum += by_token * tokens().map(|(_, x)| x).sum::<f64>();
            assert_eq!(*found, mask.iter().map(|m| m * by_token + 0.0).collect::<Vec<_>>(), "{given}: by `{name}`");
        }
        assert_eq!(term.cotangents.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), statistics);
        assert_eq!(term.sum, sum, "{given}");
    }
}
