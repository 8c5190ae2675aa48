//! Losses, rewards and gradients computed by TRL 0.16.1 and 1.16.0: `kto.json`. Every case of the loss `kto` is compared;
//! `apo_zero_unpaired` is another loss.

use plugin_api::prelude::*;
use serde_json::{Value, json};
use test_plugin_kto::Kto;

#[path = "../../support.rs"]
mod support;

use support::{create, file, near, numbers, rows};

fn of(case: &Value) -> Kto {
    let options = ["beta", "desirable_weight", "undesirable_weight"].map(|key| (key.to_owned(), case[key].clone()));
    create(Value::Object(options.into_iter().collect())).unwrap()
}

/// The rows with their labels, then the mismatched ones.
fn batch(case: &Value) -> Batch<'static> {
    let (mut offsets, mut logp, mut reference, mut mask) = (vec![0.0], Vec::new(), Vec::new(), Vec::new());
    let (mut label, mut mismatched) = (Vec::new(), Vec::new());
    let desirable = numbers(&case["desirable"]);
    for (prefix, is_mismatched) in [("", 0.0), ("kl_", 1.0)] {
        let of = |name: &str| rows(&case[format!("{prefix}{name}")]);
        for (index, own) in of("mask").into_iter().enumerate() {
            logp.extend(of("logps").swap_remove(index));
            reference.extend(of("ref_logps").swap_remove(index));
            mask.extend(own);
            offsets.push(mask.len() as f64);
            label.push(desirable[index]);
            mismatched.push(is_mismatched);
        }
    }
    Batch::new()
        .with("offsets", Scope::BATCH, offsets)
        .with("mask", Scope::TOKEN, mask)
        .with_statistic("logp", Scope::TOKEN, logp)
        .with("reference.logp", Scope::TOKEN, reference)
        .with("column.label", Scope::SEQUENCE, label)
        .with("column.mismatched", Scope::SEQUENCE, mismatched)
}

/// Catches a reference point with a gradient, below 0, or over labelled answers; weights exchanged; a sign; and batches without
/// a desirable or without an undesirable answer that divide by 0.
#[test]
fn gotcha_24_losses_and_gradients_match_trl() {
    let file = file("kto.json");
    let cases: Vec<&Value> =
        file["cases"].as_array().unwrap().iter().filter(|case| case["loss_type"] == "kto").collect();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let (objective, batch, name) = (of(case), batch(case), case["name"].as_str().unwrap());
        let loss = objective.loss(&batch).unwrap();
        let count = objective.weigh(&batch).unwrap()[0].1;
        near(name, loss.terms[0].sum / count, case["expected"]["loss"].as_f64().unwrap(), 1e-9);
        let kl = loss.metrics.iter().find(|metric| metric.name == "kl").unwrap();
        near(name, kl.value, case["expected"]["kl"].as_f64().unwrap(), 1e-9);
        let expected: Vec<f64> = rows(&case["expected"]["grad_logps"]).concat();
        let (_, gradient) = loss.terms[0].cotangents.iter().find(|(name, _)| name == "logp").unwrap();
        for (index, found) in gradient.iter().enumerate() {
            near(name, found / count, expected.get(index).copied().unwrap_or(0.0), 1e-9);
        }
    }
}

/// Catches a rotation that pairs a prompt with its own answer, loses an answer's end, or moves a label to the other row.
#[test]
fn a_window_gets_each_prompt_with_the_next_rows_answer() {
    let rows = Batch::new()
        .with("offsets", Scope::BATCH, vec![0.0, 2.0, 3.0, 4.0, 6.0])
        .with("token", Scope::TOKEN, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .with("mask", Scope::TOKEN, vec![0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
        .with("part", Scope::SEQUENCE, vec![1.0, 2.0, 1.0, 2.0])
        .with("row", Scope::SEQUENCE, vec![7.0, 7.0, 9.0, 9.0])
        .with("column.label", Scope::SEQUENCE, vec![1.0, 1.0, 0.0, 0.0]);
    let kto = create::<Kto>(json!({})).unwrap();
    let composed = kto.compose(&rows, 0).unwrap().unwrap();
    composed.check().unwrap();
    assert_eq!(composed.get("token").unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 5.0, 6.0, 4.0, 3.0]);
    assert_eq!(composed.mask().unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
    assert_eq!(composed.offsets().unwrap(), [0, 3, 6, 10, 12]);
    assert_eq!(composed.get("column.label").unwrap(), [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(composed.get("column.mismatched").unwrap(), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(composed.get("row").unwrap(), [7.0, 9.0, 7.0, 9.0]);
}
