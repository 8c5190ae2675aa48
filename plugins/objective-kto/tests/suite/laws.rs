//! The laws of every objective, and what may be cut.

use super::{all_options, create, support::options};
use objective_kto::Kto;
use plugin_api::prelude::*;
use plugin_api_laws::objective::{Generator, verify};
use serde_json::json;

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    verify::<Kto>(&all_options().map(options), &Generator::new(71)).assert_ok();
    verify::<Kto>(&all_options().map(options), &Generator::new(72).with_sizes(9, 15)).assert_ok();
}

/// Catches a reference point over a micro-batch, which would depend on the cut; and a second forward pass without need.
#[test]
fn gotcha_01_only_the_loss_with_a_reference_point_is_coupled() {
    for (loss, coupled) in [("kto", true), ("apo-zero-unpaired", false)] {
        let requirements = create(json!({"loss": loss})).unwrap().requirements().unwrap();
        assert_eq!(requirements.coupled, coupled, "{loss}");
        assert_eq!(requirements.statistics, ["logp", "reference.logp"]);
    }
}

#[test]
fn a_beta_of_0_is_refused() {
    let error = create(json!({"beta": 0.0})).err().unwrap();
    assert!(error.code == Code::OPTION && error.message.contains("`beta`: 0 is not above 0"), "{error}");
}
