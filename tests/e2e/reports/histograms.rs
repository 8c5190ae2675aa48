//! histograms.jsonl: its numbers agree with metrics.jsonl, and it exists only in runs that count something.

use serde_json::Value;

use crate::support::{
    experiments::{PPO, REWARD, lab},
    lab::{Lab, Run, close},
};

/// Lines of a kind and name.
fn lines(run: &Run, kind: &str, name: &str) -> Vec<Value> {
    let all = run.lines("histograms.jsonl").into_iter();
    all.filter(|line| line["kind"] == kind && line["name"] == name).collect()
}

/// The numbers of `key` in metrics.jsonl and the means of `lines`, for the steps of the lines.
fn compared(run: &Run, lines: &[Value], kind: &str, key: &str) -> Vec<(f64, f64)> {
    let metrics = run.metrics(kind);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{key}: {value} is not a number"));
    let of = |line: &Value| {
        let metric = metrics.iter().find(|own| own["step"] == line["step"]).expect("a step of metrics.jsonl");
        (number(&line["sum"]) / number(&line["count"]), number(&metric[key]))
    };
    lines.iter().map(of).collect()
}

#[track_caller]
fn means_are_the_metrics(run: &Run, kind: &str, name: &str, key: &str, count: usize) {
    let lines = lines(run, kind, name);
    assert_eq!(lines.len(), count, "{kind} {name}");
    for line in &lines {
        let list = |key: &str| -> Vec<f64> { serde_json::from_value(line[key].clone()).expect("numbers") };
        let (edges, counts) = (list("edges"), list("counts"));
        assert_eq!(edges.len(), counts.len() + 1, "{line}");
        assert_eq!(Some(counts.iter().sum::<f64>()), line["count"].as_f64(), "{line}");
        assert!(edges[0] <= line["min"].as_f64().unwrap() && line["max"].as_f64().unwrap() <= edges[counts.len()]);
    }
    for (mean, metric) in compared(run, &lines, kind, key) {
        close(mean, metric, 1e-9, name);
    }
}

/// Catches rewards or lengths of another rollout or step, a rollout that is recorded at each of its steps, evaluations whose
/// lengths are those of the expected answers, and an experiment without anything to count that gets an empty file.
#[test]
fn rollouts_record_rewards_and_lengths_once() {
    let lab = lab(PPO);
    lab.run(&["eval.generate=4"]).succeeds();
    let run = lab.tiny_run();
    // A rollout of 8 prompts gives two epochs of two steps.
    let steps = |name: &str| lines(&run, "train", name).iter().map(|line| line["step"].clone()).collect::<Vec<_>>();
    for name in ["reward/length", "reward", "answers/length"] {
        assert_eq!(steps(name), [1, 5, 9], "{name}");
    }
    means_are_the_metrics(&run, "train", "reward/length", "reward/length", 3);
    means_are_the_metrics(&run, "eval", "reward/length", "eval/reward/length", 3);
    means_are_the_metrics(&run, "eval", "answers/length", "eval/answers/length", 3);
    means_are_the_metrics(&run, "eval", "reward", "eval/reward", 3);
    let nothing = Lab::tiny();
    nothing.run(&[]).succeeds();
    assert!(!nothing.at("runs/tiny/histograms.jsonl").exists());
}

/// Catches scores of one side under the other's name, and pairs that are missing from the margins or from the calibration.
#[test]
fn reward_models_record_scores_margins_and_calibration() {
    let lab = lab(REWARD);
    lab.run(&[]).succeeds();
    let run = lab.tiny_run();
    means_are_the_metrics(&run, "eval", "margin", "eval/margin", 4);
    let [chosen, rejected, margin, calibration] =
        ["score/chosen", "score/rejected", "margin", "calibration"].map(|name| lines(&run, "eval", name));
    for (step, mean) in run.eval("eval/score/mean").into_iter().enumerate() {
        let sum = |lines: &[Value]| lines[step]["sum"].as_f64().expect("a sum");
        let pairs = margin[step]["count"].as_f64().expect("a count");
        close((sum(&chosen) + sum(&rejected)) / (2.0 * pairs), mean, 1e-9, "the mean of scores");
        close(sum(&chosen) - sum(&rejected), sum(&margin), 1e-9, "the margin");
        assert_eq!(calibration[step]["count"], margin[step]["count"]);
    }
    // Of a model that ranks every pair correctly, each `a` is chosen where that is the more probable, and never elsewhere.
    let last = calibration.last().expect("a calibration");
    let list = |key: &str| last[key].as_array().expect("a list").clone();
    for (predicted, observed) in list("predicted").iter().zip(list("observed")) {
        if let Some(predicted) = predicted.as_f64() {
            assert_eq!(observed.as_f64(), Some(f64::from(u8::from(predicted > 0.5))), "{last}");
        }
    }
}
