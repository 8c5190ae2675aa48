//! Rewards, advantages, losses and gradients that TRL and torchtune computed: `ppo.json`. Every case of every family is met; where
//! a peer's convention is not ours, its family's test says which number is compared with what instead.
//!
//! The test plays the host. A row of the file is a sequence with its padding behind the mask, so that nothing has to be unpacked.
//! Token rewards are seen as advantages of a critic that says 0, with gamma 0; arbitrary ones are fed as log-ratios.

use super::{Answer, all_near, cotangent, create, handmade, metric, near, rollout};
use objective_ppo::{
    gae::whiten,
    kl::{Controller, ESTIMATORS},
    rollout::names,
};
use plugin_api::prelude::*;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

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
/// Clip fractions pass through float32 in TRL, and torchtune adds 1e-8 to their denominators.
const FRACTIONS: f64 = 1e-6;
/// torchtune's `whiten` adds 1e-8 to the 15 tokens of a mask, twice.
const WHITENED: f64 = 3e-9;

fn file() -> Vec<Case> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/references");
    let folder = std::env::var_os("TELOS_ORACLES").map_or_else(beside, PathBuf::from);
    serde_json::from_str::<File>(&std::fs::read_to_string(folder.join("ppo.json")).unwrap()).unwrap().cases
}

fn family(name: &str) -> Vec<Case> {
    let cases: Vec<Case> = file().into_iter().filter(|case| case.family == name).collect();
    assert!(!cases.is_empty(), "{name}");
    cases
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

    fn says(&self, what: &str) -> String {
        format!("{} of {}, {}: {what}", self.family, self.peer, self.name)
    }

    /// The supervised tokens; all of them where the case has no mask.
    fn mask(&self, key: &str) -> Rows {
        match self.given.get(key) {
            Some(Value::Array(_)) => self.rows(key),
            _ => same(&self.rows("logps"), 1.0),
        }
    }

    /// A mask from what the peer calls padding.
    fn unpadded(&self, key: &str) -> Rows {
        self.expects(key).iter().map(|row| row.iter().map(|padding| 1.0 - padding).collect()).collect()
    }

    #[track_caller]
    fn near(&self, what: &str, found: f64, tolerance: f64) {
        near(&self.says(what), found, read(&self.expected, what), tolerance);
    }

    /// Compares where the mask is 1.
    #[track_caller]
    fn all_near(&self, what: &str, found: &[f64], mask: &Rows, tolerance: f64) {
        all_near(&self.says(what), &kept(found, mask), &kept(&self.expects(what).concat(), mask), tolerance);
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
struct Rollout {
    mask: Rows,
    logp: Rows,
    reference: Rows,
    value: Rows,
    reward: Vec<f64>,
    ended: Vec<f64>,
}

impl Rollout {
    /// Answers that ended, of a critic that says 0.
    fn new(mask: &Rows, logp: &Rows, reference: &Rows, reward: &[f64]) -> Self {
        let ended = vec![1.0; reward.len()];
        let (mask, logp, reference) = (mask.clone(), logp.clone(), reference.clone());
        Self { value: same(&logp, 0.0), mask, logp, reference, reward: reward.to_vec(), ended }
    }

    /// Token rewards as they are: log-ratios of minus as much, at a coefficient of 1.
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
        let blind = Rollout {
            value: same(&self.logp, 0.0),
            ..Rollout::new(&self.mask, &self.logp, &self.reference, &self.reward)
        };
        let blind = Rollout { ended: self.ended.clone(), ..blind };
        blind.prepare(options).get(names::ADVANTAGE).unwrap().to_vec()
    }
}

/// The peer's estimates go on over padding; ours are compared as functions, and the rewards on an answer's tokens. Where a
/// torchtune case puts the score within the row, the answer ends there.
#[test]
fn token_rewards_are_those_of_trl_and_torchtune() {
    for case in family("kl_rewards") {
        let (logp, reference) = (case.rows("logps"), case.rows("ref_logps"));
        let scores: Vec<f64> = read(&case.given, "scores");
        let mask = match case.given.get("score_index") {
            Some(Value::Array(_)) => {
                let index: Vec<usize> = read(&case.given, "score_index");
                let upto = |last: &usize| (0..logp[0].len()).map(|t| f64::from(u8::from(t <= *last))).collect();
                index.iter().map(upto).collect()
            }
            _ => case.mask("mask"),
        };
        let estimator = match case.given.get("kl_penalty").and_then(Value::as_str) {
            None | Some("kl") => "k1",
            Some("mse") => "k2",
            Some("abs") => "abs",
            Some(unknown) => panic!("`{unknown}` is expressed by no option"),
        };
        let options = json!({"kl_coef": case.number("kl_coef"), "kl_penalty": estimator});
        let everywhere = same(&logp, 1.0);
        let of = ESTIMATORS.iter().find(|e| e.name == estimator).unwrap().of;
        let kl: Vec<f64> =
            logp.concat().iter().zip(reference.concat()).map(|(logp, reference)| of(logp - reference)).collect();
        case.all_near("kl", &kl, &everywhere, TOLERANCE);
        let found = Rollout::new(&mask, &logp, &reference, &scores).rewards(&options);
        case.all_near("rewards", &found, &mask, TOLERANCE);
        let unscored = Rollout::new(&everywhere, &logp, &reference, &vec![0.0; scores.len()]).rewards(&options);
        let key = if case.peer.starts_with("trl") { "non_score_rewards" } else { "kl_reward" };
        case.all_near(key, &unscored, &everywhere, TOLERANCE);
    }
}

#[test]
fn estimates_of_the_kl_are_those_of_trl() {
    for case in family("kl_estimators") {
        let (logp, reference) = (case.rows("logps"), case.rows("ref_logps"));
        assert_eq!(case.expected.len(), ESTIMATORS.len());
        for estimator in ESTIMATORS {
            let pairs = logp.concat().into_iter().zip(reference.concat());
            let found: Vec<f64> = pairs.map(|(logp, reference)| (estimator.of)(logp - reference)).collect();
            case.all_near(estimator.name, &found, &same(&logp, 1.0), TOLERANCE);
        }
    }
}

#[test]
fn the_adaptive_coefficient_is_that_of_trl() {
    #[derive(Deserialize)]
    struct Update {
        kl: f64,
        n_steps: usize,
    }
    for case in family("kl_controller") {
        let steering = Some((case.number("target"), case.number("horizon")));
        let mut controller = Controller { coefficient: case.number("init_kl_coef"), steering };
        let found = read::<Vec<Update>>(&case.given, "updates").into_iter().map(|update| {
            controller.update(update.kl, update.n_steps);
            controller.coefficient
        });
        let found: Vec<f64> = found.collect();
        all_near(&case.says("values"), &found, &read::<Vec<f64>>(&case.expected, "values"), TOLERANCE);
    }
}

fn estimation(case: &Case, whiten_advantages: bool, whiten_rewards: bool) -> Value {
    json!({
        "kl_coef": 1.0, "gamma": case.number("gamma"), "gae_lambda": case.number("lam"),
        "whiten_advantages": whiten_advantages, "whiten_rewards": whiten_rewards,
    })
}

#[test]
fn advantages_and_returns_are_those_of_torchtune_before_it_whitens() {
    for case in family("gae") {
        let (rewards, values) = (case.rows("rewards"), case.rows("values"));
        let all = same(&rewards, 1.0);
        let found = Rollout::of_rewards(&all, &rewards, values).prepare(estimation(&case, false, false));
        case.all_near("advantages", found.get(names::ADVANTAGE).unwrap(), &all, TOLERANCE);
        case.all_near("returns", found.get(names::RETURN).unwrap(), &all, TOLERANCE);
    }
}

/// Behind the mask TRL whitens zeros; nothing reads them. But where TRL 0.11.4 whitens rewards, those of padding are no longer 0
/// and run into the answer's advantages (0.16.1 masks again, and is met in `rollout_trl`): its numbers are those of answers that are
/// all of the row, with that reward on padding. Ours differ wherever there is padding, and only there.
#[test]
fn gotcha_30_whitened_advantages_are_those_of_trl() {
    for case in family("gae_whitened") {
        let (rewards, mask) = (case.rows("rewards"), case.rows("mask"));
        let (all, whitens) = (same(&rewards, 1.0), read(&case.given, "whiten_rewards"));
        let ours = Rollout::of_rewards(&mask, &rewards, case.rows("values")).prepare(estimation(&case, true, whitens));
        case.all_near("values", ours.get(names::OLD_VALUE).unwrap(), &all, TOLERANCE);
        let (advantages, returns) = match whitens {
            false => (ours.get(names::ADVANTAGE).unwrap().to_vec(), ours.get(names::RETURN).unwrap().to_vec()),
            true => {
                let theirs = leaking(&case, &mask, rewards);
                let returns = theirs.get(names::RETURN).unwrap().to_vec();
                for (s, row) in mask.iter().enumerate() {
                    let last = row.len() * s + row.iter().sum::<f64>() as usize - 1;
                    let apart = (returns[last] - ours.get(names::RETURN).unwrap()[last]).abs();
                    assert_eq!(apart > 1e-3, row.contains(&0.0), "{s}: {apart}");
                }
                let mut advantages = theirs.get(names::ADVANTAGE).unwrap().to_vec();
                whiten(&mut advantages, &mask.concat(), false);
                (advantages, returns)
            }
        };
        case.all_near("advantages", &advantages, &mask, TOLERANCE);
        case.all_near("returns", &returns, &all, TOLERANCE);
    }
}

/// Rewards whitened over the mask and the same done to the zeros behind it, then advantages through all of the row.
fn leaking(case: &Case, mask: &Rows, rewards: Rows) -> Batch<'static> {
    let mut whitened = rewards.concat();
    whiten(&mut whitened, &mask.concat(), true);
    // The last return of a padded row is the reward there.
    let padding = case.expects("returns")[1][5];
    let (values, width) = (case.expects("values"), mask[0].len());
    let filled: Vec<f64> =
        whitened.iter().zip(mask.concat()).map(|(x, m)| if m == 1.0 { *x } else { padding }).collect();
    let filled = filled.chunks(width).map(<[f64]>::to_vec).collect();
    Rollout::of_rewards(&same(mask, 1.0), &filled, values).prepare(estimation(case, false, false))
}

/// torchtune estimates through padding, and keeps the mean that it means to shift: gotcha 30. So here: all tokens supervised while
/// advantages are estimated, and whitened by hand over its mask with the mean kept. Ours are TRL's.
#[test]
fn gotcha_30_torchtunes_advantages_are_ours_with_their_mean_kept() {
    for case in family("gae_torchtune_whitened") {
        let (rewards, mask) = (case.rows("rewards"), case.rows("mask"));
        let all = same(&rewards, 1.0);
        let found = Rollout::of_rewards(&all, &rewards, case.rows("values")).prepare(estimation(&case, false, false));
        case.all_near("returns", found.get(names::RETURN).unwrap(), &all, TOLERANCE);
        let raw = found.get(names::ADVANTAGE).unwrap();
        let whitened = |keep_mean| {
            let mut advantages = raw.to_vec();
            whiten(&mut advantages, &mask.concat(), keep_mean);
            advantages
        };
        case.all_near("advantages", &whitened(true), &mask, WHITENED);
        let theirs = kept(&case.expects("advantages").concat(), &mask);
        let ours = kept(&whitened(false), &mask);
        assert!(theirs.iter().zip(&ours).all(|(a, b)| (a - b).abs() > 0.1), "{theirs:?} and {ours:?}");
    }
}

/// TRL whitens what stands behind the mask too. In torchtune `shift_mean` means the opposite.
#[test]
fn whitening_is_that_of_trl_and_torchtunes_turned_round() {
    for (name, inverted, tolerance) in [("masked_whiten", false, TOLERANCE), ("whiten_torchtune", true, WHITENED)] {
        for case in family(name) {
            let (mut found, mask) = (case.rows("x").concat(), case.rows("mask"));
            let shifts: bool = read(&case.given, "shift_mean");
            whiten(&mut found, &mask.concat(), shifts == inverted);
            case.all_near("whitened", &found, &mask, tolerance);
        }
    }
}

/// What a step of a host is made of: a window of the rollout with the numbers of models that have moved.
struct Step {
    mask: Rows,
    advantage: Rows,
    returns: Rows,
    old: [Rows; 2],
    new: [Rows; 2],
    entropy: Rows,
}

impl Step {
    fn of(case: &Case, mask: &Rows) -> Self {
        let rows = |key: &str| case.rows(key);
        Self {
            mask: mask.clone(),
            advantage: rows("advantages"),
            returns: rows("returns"),
            old: [rows("old_logps"), rows("old_values")],
            new: [rows("logps"), rows("values")],
            entropy: same(mask, 0.0),
        }
    }

    fn loss(&self, options: &Value) -> Loss {
        let one = |s: usize| Answer::new(&self.new[0][s]).mask(&self.mask[s]).value(&self.new[1][s]);
        let answers: Vec<Answer> = (0..self.mask.len()).map(one).collect();
        let batch = rollout(&answers).with_statistic("entropy", Scope::TOKEN, self.entropy.concat());
        let [logp, value] = self.old.each_ref().map(|rows| rows.concat());
        let batch = handmade([&self.advantage.concat(), &self.returns.concat(), &logp, &value], batch);
        create(options.clone()).unwrap().loss(&batch).unwrap()
    }

    /// A term as the host has it in the total, and its gradient.
    fn total(&self, options: &Value, term: &str, statistic: &str) -> (f64, Vec<f64>) {
        let loss = self.loss(options);
        let found = loss.terms.iter().find(|t| t.name == term).unwrap();
        let factor = found.coefficient / self.mask.concat().iter().sum::<f64>();
        let gradient = cotangent(&loss, term, statistic).iter().map(|c| factor * c).collect();
        (factor * found.sum, gradient)
    }
}

/// A case's hyper-parameters by the peer's names, as options.
fn clipping(given: &Map<String, Value>, [ratio, value, coefficient]: [&str; 3]) -> Value {
    let number = |key: &str| read::<f64>(given, key);
    json!({"clip_range": number(ratio), "value_clip_range": number(value), "value_coef": number(coefficient)})
}

/// torchtune supervises values by a mask of their own, one token longer: its two terms are those of two windows of ours. Its means
/// over every position, padding included, are compared with nothing but all tokens supervised: gotcha 32.
#[test]
fn losses_and_gradients_are_those_of_torchtune() {
    for case in family("ppo_loss") {
        let (mask, value_mask) = (case.mask("mask"), case.mask("value_mask"));
        let options = clipping(&case.given, ["epsilon", "value_clip_range", "value_coef"]);
        let everywhere = same(&mask, 1.0);
        let step = Step::of(&case, &mask);
        let (policy, by_logp) = step.total(&options, "policy", "logp");
        let (value, by_value) = Step::of(&case, &value_mask).total(&options, "value", "critic.value");
        case.near("policy_loss", policy, TOLERANCE);
        near(
            &case.says("value_loss"),
            value,
            case.number("value_coef") * read::<f64>(&case.expected, "value_loss"),
            TOLERANCE,
        );
        case.near("loss", policy + value, TOLERANCE);
        case.all_near("grad_logps", &by_logp, &everywhere, TOLERANCE);
        case.all_near("grad_values", &by_value, &everywhere, TOLERANCE);
        case.near("clipfrac", metric(&step.loss(&options), "policy/clipfrac_avg"), FRACTIONS);
        let unmasked = Step::of(&case, &everywhere).loss(&options);
        case.near("mean_ratio_unmasked", metric(&unmasked, "val/ratio"), TOLERANCE);
    }
}

/// TRL gives a batch whose mean ratio is above a threshold no loss at all. That couples a batch, and here a window is cut
/// anywhere: there is no such threshold, and the diagnostics are still the peer's.
#[test]
fn losses_gradients_and_diagnostics_are_those_of_trl() {
    for case in family("ppo_loss_trl") {
        let mask = case.mask("mask");
        let options = clipping(&case.given, ["cliprange", "cliprange_value", "vf_coef"]);
        let step = Step { entropy: entropies(&case), ..Step::of(&case, &mask) };
        let (policy, by_logp) = step.total(&options, "policy", "logp");
        let (value, by_value) = step.total(&options, "value", "critic.value");
        let loss = step.loss(&options);
        if metric(&loss, "val/ratio") <= case.number("ratio_threshold") {
            let everywhere = same(&mask, 1.0);
            case.near("policy_loss", policy, TOLERANCE);
            case.near("value_loss_scaled", value, TOLERANCE);
            case.near("loss", policy + value, TOLERANCE);
            case.all_near("grad_logps", &by_logp, &everywhere, TOLERANCE);
            case.all_near("grad_values", &by_value, &everywhere, TOLERANCE);
        } else {
            assert!(
                case.name.contains("over-threshold") && read::<f64>(&case.expected, "loss") == 0.0,
                "{}",
                case.name
            );
            assert!(policy + value != 0.0);
        }
        for (theirs, ours, tolerance) in [
            ("approx_kl", "policy/approxkl_avg", TOLERANCE),
            ("clipfrac", "policy/clipfrac_avg", FRACTIONS),
            ("value_clipfrac", "val/clipfrac_avg", FRACTIONS),
            ("entropy", "policy/entropy_avg", TOLERANCE),
            ("value_error", "value/error", TOLERANCE),
        ] {
            case.near(theirs, metric(&loss, ours), tolerance);
        }
    }
}

/// What a head makes of the case's logits.
fn entropies(case: &Case) -> Rows {
    let entropy = |logits: &Vec<f64>| {
        let lse = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
        -logits.iter().map(|x| (x - lse).exp() * (x - lse)).sum::<f64>()
    };
    read::<Vec<Rows>>(&case.given, "logits").iter().map(|row| row.iter().map(entropy).collect()).collect()
}

impl Case {
    /// The tokens that the peer reckons rewards and values for, one more than the answer's where there is room: its score sits
    /// there. As an answer of ours that is one token longer, whose last token has the same probability in both models, every reward
    /// and return is the peer's.
    fn longer(&self) -> Rollout {
        let (mask, answer) = (self.unpadded("value_padding_mask"), self.unpadded("padding_mask"));
        let real = |key: &str| -> Rows {
            let row = |(row, mask): (Vec<f64>, &Vec<f64>)| row.iter().zip(mask).map(|(x, m)| x * m).collect();
            self.rows(key).into_iter().zip(&answer).map(row).collect()
        };
        let rollout = Rollout::new(&mask, &real("logps"), &real("ref_logps"), &read::<Vec<f64>>(&self.given, "scores"));
        Rollout { value: self.rows("values"), ..rollout }
    }

    fn has_eos(&self, before: usize) -> impl Fn(&Vec<f64>) -> bool {
        let eos = self.number("eos_id");
        move |row| row[..before].contains(&eos)
    }
}

/// TRL 0.16.1 puts the score one past the answer where there is room (gotcha 29), and whitens advantages and takes the policy's
/// means over the answer alone, the value's over one token more. Rewards and returns are compared on the longer answer; advantages
/// are ours before whitening, whitened over the shorter.
#[test]
fn gotcha_29_a_rollout_of_trl_from_scores_to_gradients() {
    for case in family("rollout_trl") {
        let hyper: Map<String, Value> = read(&case.given, "hyper");
        let number = |key: &str| hyper[key].as_f64().unwrap_or(0.0);
        let mut options = clipping(&hyper, ["cliprange", "cliprange_value", "vf_coef"]);
        for (theirs, ours) in [
            ("kl_coef", "kl_coef"),
            ("missing_eos_penalty", "missing_eos_penalty"),
            ("gamma", "gamma"),
            ("lam", "gae_lambda"),
        ] {
            options[ours] = json!(number(theirs));
        }
        options["whiten_rewards"] = hyper["whiten_rewards"].clone();
        options["whiten_advantages"] = json!(false);
        let responses = case.rows("responses");
        let ended =
            responses.iter().map(case.has_eos(responses[0].len())).map(|has| f64::from(u8::from(has))).collect();
        let longer = Rollout { ended, ..case.longer() };
        let (answer, everywhere) = (case.unpadded("padding_mask"), same(&responses, 1.0));
        case.all_near("rewards", &longer.rewards(&options), &everywhere, TOLERANCE);
        let prepared = longer.prepare(options.clone());
        let adjusted: Vec<f64> = read(&case.expected, "adjusted_scores");
        all_near(&case.says("adjusted_scores"), prepared.get(names::SCORE).unwrap(), &adjusted, TOLERANCE);
        let kl: Vec<f64> = case.expects("kl").iter().map(|row| row.iter().sum()).collect();
        all_near(&case.says("kl"), prepared.get(names::KL).unwrap(), &kl, TOLERANCE);
        case.all_near("returns", prepared.get(names::RETURN).unwrap(), &everywhere, TOLERANCE);
        let mut advantage = prepared.get(names::ADVANTAGE).unwrap().to_vec();
        whiten(&mut advantage, &answer.concat(), false);
        case.all_near("advantages", &advantage, &answer, TOLERANCE);

        let width = responses[0].len();
        let step = |mask: &Rows| Step {
            mask: mask.clone(),
            advantage: advantage.chunks(width).map(<[f64]>::to_vec).collect(),
            returns: case.expects("returns"),
            old: [case.rows("logps"), case.rows("values")],
            new: [case.rows("new_logps"), case.rows("new_values")],
            entropy: same(mask, 0.0),
        };
        let (of_policy, of_value) = (step(&answer), step(&longer.mask));
        let (policy, by_logp) = of_policy.total(&options, "policy", "logp");
        let (value, by_value) = of_value.total(&options, "value", "critic.value");
        case.near("policy_loss", policy, TOLERANCE);
        near(&case.says("value_loss"), value, number("vf_coef") * read::<f64>(&case.expected, "value_loss"), TOLERANCE);
        case.near("loss", policy + value, TOLERANCE);
        case.all_near("grad_logps", &by_logp, &everywhere, TOLERANCE);
        case.all_near("grad_values", &by_value, &everywhere, TOLERANCE);
        let (policy, value) = (of_policy.loss(&options), of_value.loss(&options));
        case.near("clipfrac", metric(&policy, "policy/clipfrac_avg"), FRACTIONS);
        case.near("value_clipfrac", metric(&value, "val/clipfrac_avg"), FRACTIONS);
        // The peer's mean has the zeros of padding in its denominator: gotcha 32.
        let share = answer.concat().iter().sum::<f64>() / everywhere.concat().len() as f64;
        case.near("approx_kl_unmasked", share * metric(&policy, "policy/approxkl_avg"), TOLERANCE);
    }
}

/// torchtune puts the penalty in the score's place: `missing_eos = "replace"`. Its shortest length of an answer is a stop rule, hence
/// the host's: what it penalises is given as cut off. An end in the very last position counts as missing there.
#[test]
fn gotcha_29_a_rollout_of_torchtune_from_scores_to_rewards() {
    for case in family("rollout_torchtune") {
        let options = json!({
            "kl_coef": case.number("kl_coef"), "missing_eos": "replace", "missing_eos_penalty": -case.number("reward_penalty"),
        });
        let responses = case.rows("responses");
        let last_index: Vec<f64> = read(&case.expected, "last_index");
        let (penalised, shortest) =
            (read::<bool>(&case.given, "penalise_no_eos"), case.given["min_response_length"].as_f64());
        let has_eos = case.has_eos(responses[0].len() - 1);
        let ended = responses.iter().zip(&last_index).map(|(row, last)| {
            let fine = (has_eos(row) || !penalised) && shortest.is_none_or(|shortest| *last >= shortest);
            f64::from(u8::from(fine))
        });
        let longer = Rollout { ended: ended.collect(), ..case.longer() };
        let everywhere = same(&responses, 1.0);
        case.all_near("rewards", &longer.rewards(&options), &everywhere, TOLERANCE);
        let prepared = longer.prepare(options);
        let adjusted: Vec<f64> = read(&case.expected, "adjusted_scores");
        all_near(&case.says("adjusted_scores"), prepared.get(names::SCORE).unwrap(), &adjusted, TOLERANCE);
        case.all_near("values", prepared.get(names::OLD_VALUE).unwrap(), &everywhere, TOLERANCE);
        let kl: Vec<f64> = case.expects("kl").iter().map(|row| row.iter().sum()).collect();
        all_near(&case.says("kl"), prepared.get(names::KL).unwrap(), &kl, TOLERANCE);
    }
}

/// A family that no test above reads would be met by nobody.
#[test]
fn every_family_has_its_test() {
    let mut families: Vec<String> = file().into_iter().map(|case| case.family).collect();
    assert_eq!(families.len(), 30);
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
    assert_eq!(families, tested);
}
