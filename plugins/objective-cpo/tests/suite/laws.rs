//! The laws of every objective.

use super::{of_cpo, of_simpo, support::options};
use objective_cpo::{cpo::Cpo, simpo::SimPo};
use plugin_api_laws::objective::{Generator, verify};

#[test]
fn the_laws_hold_under_every_kind_of_options() {
    for generator in [Generator::new(51), Generator::new(52).with_sizes(9, 15)] {
        verify::<Cpo>(&of_cpo().map(options), &generator).assert_ok();
        verify::<SimPo>(&of_simpo().map(options), &generator).assert_ok();
    }
}
