//! The laws of every objective.

use super::{all_options, create, support::options};
use objective_unlikelihood::Unlikelihood;
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    verify::<Unlikelihood>(&all_options().map(options), &Generator::new(91)).assert_ok();
    verify::<Unlikelihood>(&all_options().map(options), &Generator::new(92).with_sizes(9, 15)).assert_ok();
}

/// Catches candidates that a role would choose, and another number of them than `compose` returns.
#[test]
fn the_candidates_come_from_compose() {
    let requirements = create(json!({"candidates": 7})).unwrap().requirements().unwrap();
    assert_eq!(requirements.statistics, ["logp", "candidates"]);
    let candidates = requirements.candidates.unwrap();
    assert_eq!((candidates.from.as_str(), candidates.count), ("compose", 7));
}
