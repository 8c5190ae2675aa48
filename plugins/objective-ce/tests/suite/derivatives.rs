//! The sums and derivatives of the doc comment's formulas, derived by hand: to the last bit.

use super::{
    Plugin, all_options,
    support::{create, options},
};
use objective_ce::Config;
use plugin_api::{objective::Term, options::OptionSet, prelude::*};
use plugin_api_laws::objective::{Generator, Values};

/// The supervised tokens' values of a statistic, and its cotangents if `derivative` is that of one token.
fn of(batch: &Batch<'_>, name: &str, derivative: impl Fn(f64) -> f64) -> (Vec<f64>, (String, Vec<f64>)) {
    let tokens = || batch.mask().unwrap().iter().zip(batch.get(name).unwrap());
    let supervised = tokens().filter(|(m, _)| **m == 1.0).map(|(_, x)| *x).collect();
    let cotangents = tokens().map(|(m, x)| if *m == 1.0 { derivative(*x) } else { 0.0 }).collect();
    (supervised, (name.to_owned(), cotangents))
}

fn by_hand(config: &Config, batch: &Batch<'_>) -> Vec<Term> {
    let eps = config.label_smoothing;
    let term = |name: &str, coefficient, sum, cotangents| Term { name: name.into(), coefficient, sum, cotangents };
    let (logp, by_logp) = of(batch, "logp", |_| -(1.0 - eps));
    let (mut sum, mut cotangents) = ((1.0 - eps) * -logp.iter().sum::<f64>(), vec![by_logp]);
    if eps > 0.0 {
        let ((lse, by_lse), (mean, by_mean)) = (of(batch, "lse", |_| eps), of(batch, "mean_logit", |_| -eps));
        sum += eps * (lse.iter().sum::<f64>() - mean.iter().sum::<f64>());
        cotangents.extend([by_lse, by_mean]);
    }
    let mut terms = vec![term("cross_entropy", 1.0, sum, cotangents)];
    if config.z_loss > 0.0 {
        let (lse, by_lse) = of(batch, "lse", |z| 2.0 * z);
        terms.push(term("z_loss", config.z_loss, lse.iter().map(|z| z * z).sum(), vec![by_lse]));
    }
    terms
}

/// Catches a smoothing in another order of sums, which changes the last bits of every run, and a cotangent that is not exact.
#[test]
fn the_tape_matches_derivatives_derived_by_hand() {
    let (generator, manifest) = (Generator::new(5).with_sizes(20, 30), Plugin::manifest());
    for given in all_options() {
        let (config, ce) = (Config::parse(&options(given.clone())).unwrap(), create::<Plugin>(given.clone()).unwrap());
        let statistics = ce.requirements().unwrap().statistics;
        let batch = generator.fill(&generator.data(&manifest, 1), &statistics, Values::Random(1)).unwrap();
        assert!(batch.mask().unwrap().contains(&0.0), "without a masked token this tests little");
        assert_eq!(ce.loss(&batch).unwrap().terms, by_hand(&config, &batch), "{given}");
    }
}
