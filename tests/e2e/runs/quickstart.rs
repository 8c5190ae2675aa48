//! The quickstart works from any seed: every stage improves its metric.

use std::path::Path;

use serde_json::Value;

use crate::support::lab::Lab;

/// A pipeline's JSON output.
struct Report(Value);

impl Report {
    /// A figure of a stage, `before` or `after` it.
    #[track_caller]
    fn figure(&self, stage: &str, name: &str, when: &str) -> f64 {
        let named = |list: &Value, key: &str, name: &str| -> Option<Value> {
            list.as_array()?.iter().find(|entry| entry[key] == name).cloned()
        };
        let figures = named(&self.0["stages"], "stage", stage).map(|stage| stage["figures"].clone());
        let figure = figures.and_then(|figures| named(&figures, "name", name)?[when].as_f64());
        figure.unwrap_or_else(|| panic!("{stage} has no {name} {when} it: {:#}", self.0))
    }
}

/// Catches a stage that learns nothing, a reward model that ranks by length, PPO that raises its model's reward and not the true
/// one, and preference learning that is no better than more of the same demonstrations. A quarter of an hour.
#[test]
#[ignore = "takes a quarter of an hour: cargo xtask test --full"]
fn every_stage_improves_its_metric_from_three_seeds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/quickstart.toml");
    let file = file.to_str().expect("UTF-8");
    for seed in [7, 8, 9] {
        let answer = Lab::new().ask(&["run", file, "--json", "--set", &format!("seed={seed}")]);
        answer.succeeds();
        let report = Report(answer.last_event());
        let (before, after) =
            (|stage, name| report.figure(stage, name, "before"), |stage, name| report.figure(stage, name, "after"));
        let lift = after("sft", "exact_match") - before("sft", "exact_match");
        let ranked = [after("reward", "accuracy"), before("reward-equal", "accuracy")];
        let [tuned, more, ppo, dpo] = ["sft", "sft-more", "ppo", "dpo"].map(|stage| after(stage, "reward/world"));
        let kl = after("ppo", "answers/kl");
        println!(
            "seed {seed}: exact match +{lift:.3} by instruction tuning; {ranked:.3?} of the pairs ranked; true reward {tuned:.3} \
             tuned, {more:.3} tuned further, {ppo:.3} by PPO at {kl:.2} nats, {dpo:.3} by DPO"
        );
        assert!(lift >= 0.3, "exact match rose by {lift}");
        assert!(ranked.iter().all(|share| *share >= 0.9), "{ranked:?} of the pairs are ranked");
        // Five standard errors of the difference of two means over 600 answers.
        for (name, reward) in [("ppo", ppo), ("dpo", dpo)] {
            assert!(
                reward > tuned.max(more) + 0.12,
                "{name}: {reward}, where tuning gives {tuned}, and further tuning {more}"
            );
        }
        assert!((0.0..2.0).contains(&kl), "{kl} nats an answer");
    }
}
