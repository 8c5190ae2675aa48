//! Losses and gradients computed by TRL 0.16.1 and 1.16.0: `simpo.json`. Compared are the cases of the loss `simpo` without label
//! smoothing and without a likelihood term.

use plugin_api::prelude::*;
use serde_json::json;
use test_plugin_simpo::SimPo;

#[path = "../../support.rs"]
mod support;

use support::{create, file, near, rows};

/// Catches sums for means, a margin that beta scales twice, sides exchanged, and a gradient behind the mask.
#[test]
fn gotcha_26_losses_and_gradients_match_trl() {
    let file = file("simpo.json");
    let mut met = 0;
    for case in file["cases"].as_array().unwrap() {
        let plain = case["cpo_alpha"] == 0.0 && case["label_smoothing"] == 0.0;
        if case["loss_type"] != "simpo" || !plain {
            continue;
        }
        let options = json!({"beta": case["beta"], "gamma": case["simpo_gamma"]});
        let objective = create::<SimPo>(options).unwrap();
        let input = &file["inputs"][case["input"].as_str().unwrap()];
        let (mut offsets, mut logp, mut mask) = (vec![0.0], Vec::new(), Vec::new());
        let (mut group, mut side, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        for (name, is_chosen) in [("chosen", 1.0), ("rejected", 0.0)] {
            for (pair, own) in rows(&input[name]["mask"]).into_iter().enumerate() {
                logp.extend(rows(&input[name]["logps"]).swap_remove(pair));
                mask.extend(own);
                offsets.push(mask.len() as f64);
                group.push(pair as f64);
                side.push(is_chosen);
            }
            expected.extend(rows(&case["expected"][format!("grad_{name}")]).concat());
        }
        let pairs = group.len() as f64 / 2.0;
        let batch = Batch::new()
            .with("offsets", Scope::BATCH, offsets)
            .with("mask", Scope::TOKEN, mask)
            .with("group", Scope::SEQUENCE, group)
            .with("side", Scope::SEQUENCE, side)
            .with_statistic("logp", Scope::TOKEN, logp);
        let loss = objective.loss(&batch).unwrap();
        let name = case["name"].as_str().unwrap();
        near(name, loss.terms[0].sum / pairs, case["expected"]["loss"].as_f64().unwrap(), 1e-9);
        assert_eq!(loss.terms[0].cotangents[0].1.len(), expected.len(), "{name}");
        for (found, expected) in loss.terms[0].cotangents[0].1.iter().zip(&expected) {
            near(name, found / pairs, *expected, 1e-9);
        }
        met += 1;
    }
    assert_eq!(met, 2, "`simpo-a` and `simpo-b`");
}
