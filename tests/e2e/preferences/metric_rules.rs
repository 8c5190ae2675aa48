//! Metrics of rules: early stopping and the best checkpoint read a metric that evaluations report.

use std::fs;

use serde_json::Value;

use crate::support::experiments::{PPO, lab};

/// Catches a metric that is never measured: early stopping would end the run, and no best checkpoint would ever be kept.
#[test]
fn a_metric_that_is_never_measured_is_refused_before_anything_is_written() {
    let lab = lab(PPO);
    let refused = |sets: &[&str], parts: &[&str]| {
        lab.run(sets).refuses(2, parts);
        assert!(!lab.tiny_run().0.exists(), "{sets:?}");
    };
    let stop = |metric: &str| format!("eval.early_stop={{metric=\"{metric}\",patience=1}}");
    let (typo, other) = (stop("max:eval/rewrd"), stop("min:eval/loss"));
    let answered = ["eval.every=2", "eval.generate=4"];
    refused(&[&answered[..], &[&typo]].concat(), &["eval.early_stop.metric", "did you mean \"eval/reward\"?"]);
    refused(&[&answered[..], &[&other]].concat(), &["reported are eval/answers/ended", "eval/reward/length"]);
    refused(&["eval.every=2", "eval.early_stop.patience=1"], &["eval.early_stop.metric", "eval.generate"]);
    refused(&["eval.every=2", "checkpoint.best=min:eval/loss"], &["checkpoint.best", "eval.generate"]);
    lab.ask(&["check", "tiny.toml", "--set", &typo, "--set", answered[0], "--set", answered[1]])
        .refuses(2, &["did you mean"]);
    // If answers are scored, their rewards decide which policy is best.
    lab.run(&[&answered[..], &["eval.early_stop.patience=9"]].concat()).succeeds();
    let run = lab.tiny_run();
    let best = run.pointer("BEST").expect("a best checkpoint");
    let evals = run.metrics("eval");
    let reward = |line: &Value| line["eval/reward"].as_f64().expect("a number");
    let most = evals.iter().skip(1).map(reward).fold(f64::MIN, f64::max);
    assert!(evals.iter().any(|line| line["step"] == best && reward(line) == most), "{best}: {evals:?}");
}

/// Catches a KL of evaluated answers that depends on the temperature at which rollouts are drawn.
#[test]
fn the_kl_of_answers_uses_the_policy_that_sampled_them() {
    let lab = lab(PPO);
    lab.run(&["train.steps=8", "train.optimizer.lr=1e-2"]).succeeds();
    fs::rename(lab.at("runs/tiny"), lab.at("runs/other")).expect("renamed");
    let kl = |temperature: &str| {
        _ = fs::remove_dir_all(lab.at("runs/tiny"));
        let drawn = format!("rollout.temperature={temperature}");
        let reference = "reference={from=\"runs/other\"}";
        lab.run(&["train.steps=1", "eval.generate=8", "eval.temperature=1.0", reference, &drawn]).succeeds();
        lab.tiny_run().eval("eval/answers/kl")[0]
    };
    let (cold, warm) = (kl("0.5"), kl("2.0"));
    assert!(cold.abs() > 1e-3, "{cold}: the reference is another model");
    assert_eq!(cold, warm);
}
