//! The laws of every objective.

use super::{all_options, support::options};
use objective_orpo::Orpo;
use plugin_api_laws::objective::{Generator, verify};

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    verify::<Orpo>(&all_options().map(options), &Generator::new(61)).assert_ok();
    verify::<Orpo>(&all_options().map(options), &Generator::new(62).with_sizes(9, 15)).assert_ok();
}
