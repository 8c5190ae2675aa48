//! Three small objectives for tests of what belongs to a window: [`annealed`] reads the step, [`baseline`] prepares with the
//! statistics of the window, [`mismatched`] composes sequences that do not count and attaches arrays to them.

pub mod annealed;
pub mod baseline;
pub mod mismatched;

use plugin_api::prelude::*;

/// The manifest of one term in nats.
fn manifest(summary: &str, formula: &str, data: DataKind, normaliser: Normaliser) -> ObjectiveManifest {
    ObjectiveManifest {
        summary: summary.into(),
        formula: formula.into(),
        data,
        terms: vec![TermSpec::new("nll", normaliser, "The loss")],
        ..Default::default()
    }
}

export_objective!("annealed", annealed::Annealed);
export_objective!("baseline", baseline::Baseline);
export_objective!("mismatched", mismatched::Mismatched);
