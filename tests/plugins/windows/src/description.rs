//! What the manifests of the three objectives share.

use plugin_api::prelude::*;

/// A manifest with one term.
pub(crate) fn manifest(summary: &str, formula: &str, data: DataKind, normaliser: Normaliser) -> ObjectiveManifest {
    ObjectiveManifest {
        summary: summary.into(),
        formula: formula.into(),
        data,
        terms: vec![TermSpec::new("nll", normaliser, "The loss")],
        ..Default::default()
    }
}
