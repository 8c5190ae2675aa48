//! The laws of every objective.

use super::{all_options, create, support::options};
use objective_unlikelihood::Unlikelihood;
use plugin_api::{prelude::*, tape::Tolerance};
use plugin_api_laws::objective::{Generator, Laws, verify};
use serde_json::json;

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    for generator in [Generator::new(91), Generator::new(92).with_sizes(9, 15)] {
        verify::<Unlikelihood>(&all_options().map(options), &generator).assert_ok();
        // A single candidate may have nearly the whole probability. At log p = -x the error of a central difference of
        // step h is (h / x)^2 / 3 of the derivative: at -0.003 it exceeds the usual 1e-6.
        let tolerance = Tolerance { relative: 1e-5, ..Tolerance::default() };
        let single = options(json!({"candidates": 1, "alpha": 0.5}));
        let laws = Laws::of::<Unlikelihood>().with_options(single).with_generator(generator);
        laws.with_tolerance(tolerance).verify().assert_ok();
    }
}

/// Catches candidates that a role would choose, and another number of them than `compose` returns.
#[test]
fn the_candidates_come_from_compose() {
    let requirements = create(json!({"candidates": 7})).unwrap().requirements().unwrap();
    assert_eq!(requirements.statistics, ["logp", "candidates"]);
    let candidates = requirements.candidates.unwrap();
    assert_eq!((candidates.from.as_str(), candidates.count), ("compose", 7));
}
