//! Rewards, advantages, losses and gradients computed by TRL and torchtune: `ppo.json`. Every case of every family is compared;
//! where their convention differs from ours, the family's test says which numbers are compared instead.
//!
//! The test does the host's part. A row of the file is a sequence with its padding behind the mask, so that nothing has to be
//! unpacked. Token rewards are read as advantages of a critic of value 0, with gamma 0; arbitrary ones are passed in as
//! log-ratios.

mod advantages;
mod losses;
mod rewards;
mod rollouts;
mod torchtune;

use super::{Answer, all_near, create, file, near, rollout};
use objective_ppo::rollout::names;
use plugin_api::prelude::*;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    family: String,
    peer: String,
    name: String,
    expected: Map<String, Value>,
    #[serde(flatten)]
    given: Map<String, Value>,
}

/// `[sequence][token]`.
type Rows = Vec<Vec<f64>>;

const TOLERANCE: f64 = 1e-9;
/// TRL computes clip fractions in float32, and torchtune adds 1e-8 to their denominators.
const FRACTIONS: f64 = 1e-6;

fn all() -> Vec<Case> {
    serde_json::from_value::<File>(file("ppo.json")).unwrap().cases
}

fn family(name: &str) -> Vec<Case> {
    all().into_iter().filter(|case| case.family == name).collect()
}

fn read<T: DeserializeOwned>(from: &Map<String, Value>, key: &str) -> T {
    let value = from.get(key).unwrap_or_else(|| panic!("no `{key}`"));
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("`{key}`: {e}"))
}

impl Case {
    fn rows(&self, key: &str) -> Rows {
        read(&self.given, key)
    }

    fn number(&self, key: &str) -> f64 {
        read(&self.given, key)
    }

    fn expects(&self, key: &str) -> Rows {
        read(&self.expected, key)
    }

    fn label(&self, what: &str) -> String {
        format!("{} of {}, {}: {what}", self.family, self.peer, self.name)
    }

    /// The supervised tokens; all of them if the case has no mask.
    fn mask(&self, key: &str) -> Rows {
        match self.given.get(key) {
            Some(Value::Array(_)) => self.rows(key),
            _ => same(&self.rows("logps"), 1.0),
        }
    }

    /// A mask from the padding in the file.
    fn unpadded(&self, key: &str) -> Rows {
        self.expects(key).iter().map(|row| row.iter().map(|padding| 1.0 - padding).collect()).collect()
    }

    #[track_caller]
    fn near(&self, what: &str, found: f64, tolerance: f64) {
        near(&self.label(what), found, read(&self.expected, what), tolerance);
    }

    /// Compares where the mask is 1.
    #[track_caller]
    fn all_near(&self, what: &str, found: &[f64], mask: &Rows, tolerance: f64) {
        all_near(&self.label(what), &kept(found, mask), &kept(&self.expects(what).concat(), mask), tolerance);
    }
}

fn same(rows: &Rows, value: f64) -> Rows {
    rows.iter().map(|row| vec![value; row.len()]).collect()
}

fn kept(values: &[f64], mask: &Rows) -> Vec<f64> {
    let mask = mask.concat();
    assert_eq!(values.len(), mask.len());
    values.iter().zip(mask).filter(|(_, m)| *m == 1.0).map(|(x, _)| *x).collect()
}

/// A rollout of one answer per row.
#[derive(Clone)]
struct Rollout {
    mask: Rows,
    logp: Rows,
    reference: Rows,
    value: Rows,
    reward: Vec<f64>,
    ended: Vec<f64>,
}

impl Rollout {
    /// Answers that ended, with a critic of value 0.
    fn new(mask: &Rows, logp: &Rows, reference: &Rows, reward: &[f64]) -> Self {
        let ended = vec![1.0; reward.len()];
        let (mask, logp, reference) = (mask.clone(), logp.clone(), reference.clone());
        Self { value: same(&logp, 0.0), mask, logp, reference, reward: reward.to_vec(), ended }
    }

    /// Given token rewards: log-ratios of the negative values, at a coefficient of 1.
    fn of_rewards(mask: &Rows, rewards: &Rows, value: Rows) -> Self {
        Self { value, ..Self::new(mask, &same(rewards, 0.0), rewards, &vec![0.0; rewards.len()]) }
    }

    fn prepare(&self, options: Value) -> Batch<'static> {
        let one = |s: usize| Answer {
            mask: self.mask[s].clone(),
            logp: self.logp[s].clone(),
            reference: self.reference[s].clone(),
            value: self.value[s].clone(),
            value_end: f64::NAN,
            reward: self.reward[s],
            ended: self.ended[s],
        };
        let answers: Vec<Answer> = (0..self.mask.len()).map(one).collect();
        create(options).unwrap().prepare(&rollout(&answers)).unwrap()
    }

    /// `[N]` token rewards.
    fn rewards(&self, options: &Value) -> Vec<f64> {
        let mut options = options.clone();
        for (key, value) in [("gamma", json!(0.0)), ("gae_lambda", json!(0.0)), ("whiten_advantages", json!(false))] {
            options[key] = value;
        }
        let blind = Rollout { value: same(&self.logp, 0.0), ..self.clone() };
        blind.prepare(options).get(names::ADVANTAGE).unwrap().to_vec()
    }
}

/// Catches a family without a test. Files with other numbers than the project's own may leave families out.
#[test]
fn every_family_has_its_test() {
    let mut families: Vec<String> = all().into_iter().map(|case| case.family).collect();
    families.sort();
    families.dedup();
    let tested = [
        "gae",
        "gae_torchtune_whitened",
        "gae_whitened",
        "kl_controller",
        "kl_estimators",
        "kl_rewards",
        "masked_whiten",
        "ppo_loss",
        "ppo_loss_trl",
        "rollout_torchtune",
        "rollout_trl",
        "whiten_torchtune",
    ];
    let unread: Vec<&String> = families.iter().filter(|family| !tested.contains(&family.as_str())).collect();
    assert!(unread.is_empty() && !families.is_empty(), "{unread:?}");
    assert!(families.len() == tested.len() || std::env::var_os("TELOS_ORACLES").is_some(), "{families:?}");
}
