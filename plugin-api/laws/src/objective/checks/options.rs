//! The law of options: an instance can be created with the defaults, and values that the declaration forbids are refused by name.

use crate::{
    objective::{
        laws::Laws,
        outcome::{Held, Outcome},
    },
    options::{checked, required},
};
use plugin_api::options::OptionMap;

/// An instance can be created with the defaults; illegal values are refused by key.
pub(in crate::objective) fn options(laws: &Laws) -> Outcome {
    let base = required(&laws.manifest.options, laws.options.first().unwrap_or(&OptionMap::new()));
    let tried = checked(&laws.manifest.options, &base, &|options| (laws.create)(options).map(drop))?;
    Ok(Held::note(format!("{tried} illegal values refused")))
}
