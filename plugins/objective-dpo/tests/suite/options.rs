//! Options: what each requests, and which contradictions are refused.

use super::{create, of, settings};
use objective_dpo::{Dpo, config::Config, divergence::DIVERGENCES, losses::LOSSES};
use plugin_api::{options::OptionSet, prelude::*};
use serde_json::json;

/// Catches a loss that is in the table but cannot be selected, and the reverse; and a default that is not the first row.
#[test]
fn the_choices_are_the_tables() {
    let specs = Config::specs();
    let choices = |name: &str| specs.iter().find(|s| s.name == name).unwrap().choices.clone();
    assert_eq!(choices("loss"), LOSSES.iter().map(|l| l.name).collect::<Vec<_>>());
    assert_eq!(Config::parse(&Default::default()).unwrap().loss, LOSSES[0].name);
    assert_eq!(choices("divergence"), DIVERGENCES.iter().map(|d| d.name).collect::<Vec<_>>());
    assert!(LOSSES.iter().all(|loss| create(of(loss)).is_ok()));
}

#[test]
fn a_reference_is_required_unless_the_loss_is_reference_free() {
    for loss in LOSSES {
        let mut given = of(loss);
        assert_eq!(create(given.clone()).unwrap().requirements().unwrap().statistics, ["logp", "reference.logp"]);
        given["reference_free"] = json!(true);
        assert_eq!(create(given).unwrap().requirements().unwrap().statistics, ["logp"]);
    }
}

/// A reference that is required and missing is an error; the run is not treated as reference-free.
#[test]
fn a_missing_reference_does_not_make_a_run_reference_free() {
    let batch = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 1.0, 2.0])
        .with("mask", Scope::TOKEN, vec![1.0, 1.0])
        .with("group", Scope::SEQUENCE, vec![1.0, 1.0])
        .with("side", Scope::SEQUENCE, vec![1.0, 0.0])
        .with_statistic("logp", Scope::TOKEN, vec![-1.0, -2.0]);
    let error = create(json!({})).unwrap().loss(&batch).unwrap_err();
    assert_eq!(error.code, Code::ARRAY);
    assert!(error.message.contains("reference.logp"), "{error}");
    assert!(create(json!({"reference_free": true})).unwrap().loss(&batch).is_ok());
}

/// Catches an option that the loss ignores, a relative of gotcha 21.
#[test]
fn options_without_effect_are_refused_by_name() {
    for (given, key) in [
        (json!({"beta": 0.0}), "`beta`"),
        (json!({"loss": "hinge", "label_smoothing": 0.1}), "`label_smoothing`"),
        (json!({"loss": "ipo", "label_smoothing": 0.1}), "`label_smoothing`"),
        (json!({"loss": "ipo", "divergence": "js"}), "`divergence`"),
        (json!({"loss": "nca", "divergence": "js"}), "`divergence`"),
        (json!({"loss": "aot", "divergence": "js"}), "`divergence`"),
        (json!({"divergence_alpha": 0.5}), "`divergence_alpha`"),
        (json!({"divergence": "alpha", "divergence_alpha": 0.0}), "`divergence_alpha`"),
        (json!({"loss": "ipo", "ld_alpha": 0.5}), "`ld_alpha`"),
        (json!({"loss": "sft", "ld_alpha": 0.5}), "`ld_alpha`"),
        (json!({"discopop_tau": 0.1}), "`discopop_tau`"),
        (json!({"loss": "sft", "sft_weight": 0.5}), "`sft_weight`"),
    ] {
        let error = create(given.clone()).err().unwrap_or_else(|| panic!("{given} is accepted"));
        assert_eq!(error.code, Code::OPTION);
        assert!(error.message.contains(key), "{given}: {error}");
    }
    let both = create(json!({"loss": "hinge", "label_smoothing": 0.1, "beta": 0.0})).err().unwrap();
    assert!(both.message.contains("`beta`") && both.message.contains("`label_smoothing`"), "{both}");
}

/// Only the likelihood has no pairs' term, and a mixture has both.
#[test]
fn terms_appear_only_if_their_options_use_them() {
    let batch = super::batch(&[[(&[-1.0, -2.0], &[-1.0, -1.0]), (&[-3.0], &[-2.0])]]);
    for (given, names) in [
        (json!({}), &["preference"][..]),
        (json!({"sft_weight": 0.5}), &["preference", "sft"]),
        (json!({"loss": "sft"}), &["sft"]),
    ] {
        let loss = create(given.clone()).unwrap().loss(&batch).unwrap();
        assert_eq!(loss.terms.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), names, "{given}");
    }
    let dpo = create(json!({"sft_weight": 0.5})).unwrap();
    let sft = dpo.loss(&batch).unwrap().terms[1].clone();
    assert_eq!((sft.coefficient, sft.sum), (0.5, 3.0));
    assert_eq!(dpo.weigh(&batch).unwrap(), [("sft".to_owned(), 2.0)]);
}

/// The manifest says for every loss whether it sums or averages: beta is not comparable between them.
#[test]
fn gotcha_18_the_manifest_names_sum_or_mean_for_every_loss() {
    let formula = Dpo::manifest().formula;
    for (sums, names) in [
        (
            true,
            &[
                "sigmoid",
                "robust",
                "hinge",
                "exo",
                "nca",
                "sppo",
                "bco",
                "apo-zero",
                "apo-down",
                "aot",
                "aot-unpaired",
                "discopop",
                "sft",
            ][..],
        ),
        (false, &["sigmoid-norm", "ipo"]),
    ] {
        for name in names {
            assert!(LOSSES.iter().any(|loss| loss.name == *name && loss.averages != sums), "{name}");
        }
    }
    for loss in LOSSES {
        let convention = if loss.averages { "mean" } else { "sum" };
        assert!(formula.contains(&format!("\n  {} ({convention}): ", loss.name)), "{}", loss.name);
    }
    assert!(!settings(json!({})).loss.averages);
}
