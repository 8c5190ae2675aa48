//! The law of options: defaults make an instance, and what the declaration forbids is refused by name.

use crate::{
    objective::{
        laws::Laws,
        outcome::{Held, Outcome},
    },
    options::{checked, required},
};
use plugin_api::options::OptionMap;

/// Defaults make an instance; illegal values are refused by key.
pub(in crate::objective) fn options(laws: &Laws) -> Outcome {
    let base = required(&laws.manifest.options, laws.options.first().unwrap_or(&OptionMap::new()));
    let tried = checked(&laws.manifest.options, &base, &|options| (laws.create)(options).map(drop))?;
    Ok(Held::note(format!("{tried} illegal values refused")))
}
