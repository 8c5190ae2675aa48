//! Checks of an objective's manifest when it is loaded, and the names that belong to the host.

use super::fault::twice;
use super::option_names::{OBJECTIVE_KEYS, RESERVED_PREFIX, option_names};
use crate::{
    batch::names,
    manifest::{Normaliser, ObjectiveManifest, Reduction, Statistic},
};

/// The longest name of a term or metric, in bytes.
const LONGEST_NAME: usize = 100;

/// Keys of metrics.jsonl that the host writes itself.
const OWN_METRICS: &[&str] =
    &["step", "kind", "loss", "lr", "grad_norm", "tokens", "context", "refused", "token_accuracy", "exact_match"];
/// Prefixes of such metrics; a later host's further ones begin with the last prefix.
const OWN_METRIC_GROUPS: &[&str] = &["eval/", "reward/", "critic/", "answers/", "telos.", "host/"];
/// Ids that no objective may have, since the metrics of several objectives begin with the objective's id: the host's own groups.
const OWN_IDS: &[&str] = &["eval", "critic", "answers", "host"];

/// Whether the host writes a metric of this name into metrics.jsonl, so that no term or metric may have it.
pub fn host_owns_metric(name: &str) -> bool {
    OWN_METRICS.contains(&name) || OWN_METRIC_GROUPS.iter().any(|start| name.starts_with(start))
}

/// Arrays that the host creates in addition to the statistics.
const OWN_ARRAYS: &[&str] = &[
    names::OFFSETS,
    names::TARGET,
    names::MASK,
    names::POSITION,
    names::GROUP,
    names::SIDE,
    names::REWARD,
    names::ENDED,
    names::STEP,
    names::STEPS,
    names::COUNTED,
    names::CANDIDATE_IDS,
    names::SEGMENT_END,
    names::LONGEST,
    "token",
    "row",
    "part",
];
/// Prefixes of further such arrays: columns of the data, statistics of other models, names reserved for the ABI, and those that a
/// later host adds to every batch. (A later statistic or role is in a batch only if an objective of the experiment requires it.)
const OWN_ARRAY_GROUPS: &[&str] = &[
    names::COLUMN,
    names::REWARD_OF,
    "policy.",
    "reference.",
    "critic.",
    "teacher.",
    "context.",
    "sampler.",
    "telos.",
    "host.",
];

/// Whether the host creates an array of this name, so that `prepare` may not return one.
pub fn host_owns_array(name: &str) -> bool {
    OWN_ARRAYS.contains(&name)
        || Statistic::ALL.contains(&name)
        || OWN_ARRAY_GROUPS.iter().any(|start| name.starts_with(start))
}

/// All mistakes of a manifest that would make a run's numbers wrong or ambiguous; empty if there are none.
pub fn manifest(manifest: &ObjectiveManifest) -> Vec<String> {
    let mut wrong = option_names(&manifest.options, OBJECTIVE_KEYS);
    if OWN_IDS.contains(&manifest.id.as_str()) || manifest.id.starts_with(RESERVED_PREFIX) {
        wrong.push(format!("its id `{}` is a name of the host's own numbers in metrics.jsonl; rename it", manifest.id));
    }
    if manifest.terms.is_empty() {
        wrong.push("it declares no term, so that there is nothing to minimise".to_owned());
    }
    let terms = manifest.terms.iter().map(|term| ("term", term.name.as_str()));
    let named: Vec<(&str, &str)> =
        terms.chain(manifest.metrics.iter().map(|metric| ("metric", metric.name.as_str()))).collect();
    for (what, name) in &named {
        if let Some(why) = bad_name(name) {
            wrong.push(format!("the {what} {name:?} has a name that {why}"));
        }
        if host_owns_metric(name) {
            let all = [OWN_METRICS, OWN_METRIC_GROUPS].concat().join("`, `");
            wrong.push(format!(
                "the {what} `{name}` has a name of the host's own numbers in metrics.jsonl; rename it (the host's are, or begin with: \
                 `{all}`)"
            ));
        }
    }
    if let Some(name) = twice(named.iter().map(|(_, name)| *name)) {
        wrong.push(format!("`{name}` is declared twice; terms and metrics share one set of names"));
    }
    for term in manifest.terms.iter().filter(|term| !Normaliser::ALL.contains(&term.normaliser.as_str())) {
        let known = Normaliser::ALL.join(", ");
        wrong.push(format!("the term `{}` is divided by `{}`, expected one of {known}", term.name, term.normaliser));
    }
    for metric in manifest.metrics.iter().filter(|metric| !Reduction::ALL.contains(&metric.reduction.as_str())) {
        let (name, reduction, known) = (&metric.name, &metric.reduction, Reduction::ALL.join(", "));
        wrong.push(format!("the metric `{name}` is combined by `{reduction}`, expected one of {known}"));
    }
    for expected in &manifest.expectations {
        let (quantity, value) = (&expected.quantity, &expected.value);
        if quantity != "loss" && !named.iter().any(|(_, name)| name == quantity) {
            wrong.push(format!("it expects something of `{quantity}`, which is not a declared term or metric"));
        }
        if value != "ln_vocab" && value.parse::<f64>().is_err() {
            wrong.push(format!("it expects {value:?} of `{quantity}`, expected a number or \"ln_vocab\""));
        }
        if !(expected.tolerance >= 0.0 && expected.tolerance.is_finite()) {
            wrong.push(format!("it expects `{quantity}` within {}, expected a number from 0", expected.tolerance));
        }
    }
    wrong
}

fn bad_name(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > LONGEST_NAME {
        Some(format!("has {} bytes, expected at most {LONGEST_NAME}", name.len()))
    } else if name.trim() != name || name.contains(char::is_control) {
        Some("begins or ends with a space, or holds a control character".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Expectation, MetricSpec, TermSpec};

    fn sound() -> ObjectiveManifest {
        ObjectiveManifest {
            terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "nats")],
            metrics: vec![MetricSpec::new("margin", Reduction::MEAN, "a margin")],
            ..Default::default()
        }
    }

    /// Catches a metric or term that replaces the host's number of that name in metrics.jsonl.
    #[test]
    fn gotcha_57_names_of_host_arrays_are_refused() {
        assert_eq!(manifest(&sound()), [""; 0]);
        for name in ["loss", "grad_norm", "lr", "step", "kind", "tokens", "context", "refused", "token_accuracy"]
            .into_iter()
            .chain([
                "exact_match",
                "eval/loss",
                "reward/length",
                "critic/grad_norm",
                "answers/kl",
                "telos.kl",
                "host/seconds",
            ])
        {
            let mut bad = sound();
            bad.metrics[0].name = name.into();
            assert!(manifest(&bad).iter().any(|why| why.contains(&format!("metric `{name}`"))), "{name}");
            let mut bad = sound();
            bad.terms[0].name = name.into();
            assert!(manifest(&bad).iter().any(|why| why.contains(&format!("term `{name}`"))), "{name}");
        }
        for id in ["eval", "host", "host_a"] {
            let bad = ObjectiveManifest { id: id.into(), ..sound() };
            assert!(manifest(&bad).iter().any(|why| why.contains(&format!("its id `{id}`"))), "{id}");
        }
        for name in ["rewards/chosen", "hosts", "losses", "my_loss", "evaluated", "kl"] {
            let mut good = sound();
            good.metrics[0].name = name.into();
            assert_eq!(manifest(&good), [""; 0], "{name}");
        }
    }

    /// Catches a check that stops at the first mistake, and names that break a line of JSON or a table.
    #[test]
    fn every_mistake_of_a_manifest_is_reported() {
        let mut bad = sound();
        bad.terms[0].normaliser = Normaliser("words".into());
        bad.metrics[0].reduction = Reduction("median".into());
        bad.metrics.push(MetricSpec::new("nll", Reduction::MEAN, "as the term"));
        bad.metrics.push(MetricSpec::new(&"x".repeat(LONGEST_NAME + 1), Reduction::MEAN, "long"));
        bad.metrics.push(MetricSpec::new("a\nb", Reduction::MEAN, "two lines"));
        bad.metrics.push(MetricSpec::new(" ", Reduction::MEAN, "nothing"));
        let expect = |quantity: &str, value: &str, tolerance| Expectation {
            quantity: quantity.into(),
            value: value.into(),
            tolerance,
            when: "at first".into(),
        };
        bad.expectations = vec![expect("nil", "0", 0.1), expect("nll", "ln vocab", 0.1), expect("nll", "0", -0.1)];
        let wrong = manifest(&bad).join("\n");
        let parts = ["`words`", "`median`", "`nll` is declared twice", "101 bytes", "control character", "is empty"];
        for part in parts.into_iter().chain(["`nil`", "\"ln vocab\"", "within -0.1"]) {
            assert!(wrong.contains(part), "{part} is missing in\n{wrong}");
        }
        assert!(manifest(&ObjectiveManifest::default())[0].contains("no term"));
    }

    /// Catches an array of the host that is missing from the list, and names that the list takes from plugins.
    #[test]
    fn gotcha_57_every_array_of_the_host_is_listed() {
        let own = ["mask", "group", "target", "offsets", "side", "row", "token", "logp", "reward", "ended"];
        assert!(
            own.into_iter()
                .chain(["column.margin", "reference.logp", "critic.value", "telos.record", "host.turn"])
                .all(host_owns_array)
        );
        assert!(
            !["advantage", "old_logp", "rollout.score", "return", "keep", "columns"].into_iter().any(host_owns_array)
        );
    }
}
