//! The laws, with and without requests.

use plugin_api::batch::Scope;
use plugin_api_laws::{
    objective::{Generator, verify},
    reward,
};
use test_plugin_dynamic::{Dynamic, Spelled};

/// Catches a state that changes with every call of `prepare` instead of every rollout, and a request that does not end.
#[test]
fn the_laws_hold() {
    let options = |groups: u64, steps_of: &str| {
        [("groups".to_owned(), groups.into()), ("steps_of".to_owned(), steps_of.into())].into_iter().collect()
    };
    let generator = Generator::new(7).with_array("reward.first.token", Scope::TOKEN, -1.0..=1.0);
    let generator = generator.with_integers("column.n", Scope::SEQUENCE, 1..=9).with_list("marks", 0.5..=2.0);
    verify::<Dynamic>(&[options(0, "first"), options(4, ""), options(9, "")], &generator).assert_ok();
}

/// Catches spans in bytes, and a part that is missing for some answers.
#[test]
fn the_laws_of_the_reward_hold() {
    reward::verify::<Spelled>(&Default::default()).assert_ok();
}
