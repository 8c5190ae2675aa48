//! Three small objectives for tests of what belongs to a window: [`annealed`] reads the step, [`baseline`] prepares with the
//! statistics of the window, [`mismatched`] composes sequences that do not count and attaches arrays to them.

pub mod annealed;
pub mod baseline;
mod description;
pub mod mismatched;

use plugin_api::prelude::*;

export_objective!("annealed", annealed::Annealed);
export_objective!("baseline", baseline::Baseline);
export_objective!("mismatched", mismatched::Mismatched);
