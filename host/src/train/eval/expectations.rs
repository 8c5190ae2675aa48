//! Checks the first metrics of a run against the expectations of the objectives.

use crate::decimals::{fixed, percent};
use plugin_api::manifest::ObjectiveManifest;

use crate::objectives::{Objectives, active::Active};

/// A possible value of an expectation: the natural logarithm of the vocabulary's size.
const LN_VOCAB: &str = "ln_vocab";

/// Returns a sentence for each expectation of any objective that `figures` miss, see [`missed`].
pub fn all_missed(objectives: &Objectives, figures: &[(String, f64)], vocab: Option<u64>) -> Vec<String> {
    let of = |active: &Active| missed(&active.id, &active.prefix, &active.manifest, figures, vocab);
    objectives.iter().flat_map(of).collect()
}

/// Returns a sentence for each of an objective's expectations that `figures` miss; `prefix` comes before the names of its
/// metrics. Expectations about the vocabulary apply only to fresh weights: without `vocab` they are skipped. Metrics that were
/// not measured are skipped.
pub fn missed(
    id: &str,
    prefix: &str,
    manifest: &ObjectiveManifest,
    figures: &[(String, f64)],
    vocab: Option<u64>,
) -> Vec<String> {
    let find = |name: &str| figures.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
    let note = |expected: &plugin_api::manifest::Expectation| {
        let value = match expected.value.as_str() {
            LN_VOCAB => vocab.map(|vocab| (vocab as f64).ln()),
            number => number.parse().ok(),
        }?;
        let name = match expected.quantity.as_str() {
            "loss" => "loss".to_owned(),
            quantity => format!("{prefix}{quantity}"),
        };
        // The only term of the only objective is reported as the loss.
        let is_term = manifest.terms.iter().any(|term| term.name == expected.quantity);
        let found = find(&name).or_else(|| find("loss").filter(|_| is_term))?;
        let far = (found - value).abs() > expected.tolerance * value.abs().max(1e-9) || found.is_nan();
        far.then(|| {
            let (when, within) = (&expected.when, percent(expected.tolerance));
            format!(
                "expectation missed: {name} is {} before training; \"{id}\" expects about {}, within {within} ({when}): look for a \
                 mistake in the data, the model or the objective before you trust this run",
                fixed(found, 4),
                fixed(value, 4)
            )
        })
    };
    manifest.expectations.iter().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use plugin_api::manifest::Expectation;

    use super::*;

    fn manifest() -> ObjectiveManifest {
        let expect = |quantity: &str, value: &str| Expectation {
            quantity: quantity.into(),
            value: value.into(),
            tolerance: 0.01,
            when: "at first".into(),
        };
        let expectations = vec![expect("loss", LN_VOCAB), expect("val/ratio", "1"), expect("clipfrac", "0")];
        ObjectiveManifest { expectations, ..Default::default() }
    }

    /// Catches a check that fails for a loaded model because it is trained, one that ignores the prefix, and one that no value
    /// fails.
    #[test]
    fn gotcha_27_a_missed_expectation_is_reported_by_name() {
        let figures = |ratio: f64, clipped: f64| {
            [("loss", 2.0), ("ppo/val/ratio", ratio), ("ppo/clipfrac", clipped)].map(|(n, v)| (n.to_owned(), v))
        };
        let missed = |figures: &[(String, f64)], vocab| missed("ppo", "ppo/", &manifest(), figures, vocab);
        assert!(missed(&figures(1.005, 0.0), None).is_empty());
        assert!(missed(&[], Some(8)).is_empty());
        assert!(
            missed(&figures(1.0, 0.0), Some(257))[0]
                .contains("loss is 2.0000 before training; \"ppo\" expects about 5.5")
        );
        let both = missed(&figures(1.02, 0.1), None);
        assert!(both[0].contains("ppo/val/ratio is 1.0200") && both[1].contains("ppo/clipfrac is 0.1000"), "{both:?}");
        assert_eq!(missed(&figures(f64::NAN, 0.0), None).len(), 1);
    }
}
