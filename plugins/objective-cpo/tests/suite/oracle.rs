//! Losses, rewards and gradients computed by TRL 0.16.1 and 1.16.0, `CPOTrainer`: `simpo.json`. Every case is compared.

use super::{
    create,
    pairs::Input,
    support::{file, metric, near},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct File {
    inputs: BTreeMap<String, Input>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: String,
    loss_type: String,
    beta: f64,
    simpo_gamma: f64,
    cpo_alpha: f64,
    label_smoothing: f64,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    loss: f64,
    losses: Vec<f64>,
    nll_loss: f64,
    rewards_chosen: Vec<f64>,
    rewards_rejected: Vec<f64>,
    accuracy: f64,
    mean_margin: f64,
    grad_chosen: Vec<Vec<f64>>,
    grad_rejected: Vec<Vec<f64>>,
}

impl Case {
    /// The objective and its options.
    fn of(&self) -> (&'static str, Value) {
        let mut given = json!({
            "beta": self.beta, "sft_weight": self.cpo_alpha, "label_smoothing": self.label_smoothing
        });
        if self.loss_type == "simpo" {
            given["gamma"] = json!(self.simpo_gamma);
            return ("simpo", given);
        }
        given["loss"] = json!(self.loss_type);
        ("cpo", given)
    }
}

/// Catches a mean for a sum, gamma times beta, a likelihood over the wrong tokens, and exchanged sides.
#[test]
fn losses_and_gradients_match_every_case_of_trl() {
    let file: File = serde_json::from_value(file("simpo.json")).unwrap();
    assert!(file.cases.len() >= 9, "{} cases", file.cases.len());
    for case in &file.cases {
        let (input, expected, (id, given)) = (&file.inputs[&case.input], &case.expected, case.of());
        let name = |what: &str| format!("{} on {}: {what}", case.name, case.input);
        let batch = input.batch(&input.pairs());
        let objective = create(id, given.clone()).unwrap();
        let (loss, tokens) = (objective.loss(&batch).unwrap(), objective.weigh(&batch).unwrap()[0].1);
        let (mut total, mut gradient) = (0.0, vec![0.0; batch.tokens().unwrap()]);
        for term in &loss.terms {
            let by = if term.name == "sft" { tokens } else { input.pairs().len() as f64 };
            total += term.coefficient * term.sum / by;
            for (sum, cotangent) in gradient.iter_mut().zip(&term.cotangents[0].1) {
                *sum += term.coefficient * cotangent / by;
            }
        }
        near(&name("loss"), total, expected.loss, 1e-9);
        if case.cpo_alpha > 0.0 {
            near(&name("likelihood"), metric(&loss, "nll/chosen"), expected.nll_loss, 1e-9);
        }
        for (side, expected) in input.unpack(&gradient).iter().zip([&expected.grad_chosen, &expected.grad_rejected]) {
            for (found, expected) in side.concat().iter().zip(expected.concat()) {
                near(&name("gradient"), *found, expected, 1e-9);
            }
        }
        near(&name("accuracy"), metric(&loss, "rewards/accuracy"), expected.accuracy, 1e-6);
        near(&name("margin"), metric(&loss, "rewards/margin"), expected.mean_margin, 1e-9);
        for p in input.pairs() {
            let one = objective.loss(&input.batch(&[p])).unwrap();
            near(&name("loss of a pair"), one.terms[0].sum, expected.losses[p], 1e-9);
            near(&name("chosen reward"), metric(&one, "rewards/chosen"), expected.rewards_chosen[p], 1e-9);
            near(&name("rejected reward"), metric(&one, "rewards/rejected"), expected.rewards_rejected[p], 1e-9);
        }
    }
}
