//! The rules of an experiment: the built-in ones, which need no key, and those of `[[alert]]`.

use plugin_api::manifest::ObjectiveManifest;

use super::{
    Alert, Alerts,
    condition::{Collapse, NonFinite, OfMetric, Outside, Quantity, Zero},
    hacking::{Against, Hacking},
    names::SPREAD,
};
use crate::config::{
    Experiment,
    experiment::{BuiltIn, MetricAlert, Reward, RewardSource, Then, Watched, reward_names},
};

/// The KL to the reference, by the names that objectives with rollouts give it; that of a whole answer is divided by the length.
const KL: [(&str, Option<&str>); 3] =
    [("objective/kl", Some("length/mean")), ("kl", Some("length")), ("kl/reference", None)];
/// The most nats per token by which a policy may differ from its reference: its own tokens are then e times as probable as the
/// reference says, on average. The shipped experiments stay below 0.25.
const MOST_KL: f64 = 1.0;
/// The entropy per token, by the names that objectives with rollouts give it.
const ENTROPY: [&str; 2] = ["policy/entropy_avg", "entropy"];
/// The length of answers, likewise.
const LENGTH: [&str; 2] = ["length/mean", "length"];

/// An objective's metrics: the prefix of their names in metrics.jsonl, and its manifest.
pub type Declared<'a> = (&'a str, &'a ObjectiveManifest);

impl Alerts {
    /// The rules of `experiment`, whose objectives declare `declared`.
    pub fn new(experiment: &Experiment, declared: &[Declared<'_>]) -> Alerts {
        let mut all = built_in(experiment, declared);
        for alert in &experiment.alert {
            match &alert.watched {
                Watched::BuiltIn { rule } => {
                    let is_meant = |own: BuiltIn| *rule == BuiltIn::All || own == *rule;
                    match alert.then {
                        Then::Off => all.retain(|(own, _)| own.is_none_or(|own| !is_meant(own))),
                        then => {
                            let meant = all.iter_mut().filter(|(own, _)| own.is_some_and(is_meant));
                            meant.for_each(|(_, rule)| rule.stops = then == Then::Stop);
                        }
                    }
                }
                Watched::Metric(rule) => {
                    let own = Alert::new(OfMetric::words(rule), &rule.metric, rule.count, OfMetric::new(rule.clone()));
                    all.push((None, Alert { stops: alert.then == Then::Stop, ..own }));
                }
            }
        }
        Alerts(all.into_iter().map(|(_, alert)| alert).collect())
    }
}

/// The built-in rules that apply to this experiment.
fn built_in(experiment: &Experiment, declared: &[Declared<'_>]) -> Vec<(Option<BuiltIn>, Alert)> {
    let mut all = vec![non_finite(), dead_gradients()];
    // The loss of an objective with rollouts says nothing about progress, and jumps with every rollout.
    let rollouts = experiment.rollout.is_some();
    if !rollouts {
        all.push(loss_spike());
    }
    if rollouts && experiment.reward.iter().any(|reward| reward.weight != 0.0) {
        all.push(equal_rewards());
    }
    for (prefix, manifest) in declared {
        let named = |name: &str| format!("{prefix}{name}");
        let has = |name: &str| manifest.metrics.iter().any(|metric| metric.name == name);
        for spec in &manifest.metrics {
            all.extend(spec.healthy.map(|range| healthy_range(named(&spec.name), range, &spec.meaning)));
        }
        if !rollouts {
            continue;
        }
        let kl = KL.iter().find(|(kl, per)| has(kl) && per.is_none_or(has));
        all.extend(kl.map(|(kl, per)| kl_runaway(named(kl), per.map(named))));
        let entropy = ENTROPY.iter().find(|entropy| has(entropy));
        all.extend(entropy.map(|entropy| entropy_collapse(named(entropy))));
        let length = LENGTH.iter().find(|length| has(length));
        all.extend(reward_hacking(&experiment.reward, length.map(|length| named(length))));
    }
    all.into_iter().map(|(rule, alert)| (Some(rule), alert)).collect()
}

fn rule(
    rule: BuiltIn,
    metric: &str,
    needed: u64,
    condition: impl super::condition::Condition + 'static,
) -> (BuiltIn, Alert) {
    let word = serde_json::to_value(rule).ok().and_then(|word| Some(word.as_str()?.to_owned()));
    (rule, Alert::new(word.unwrap_or_default(), metric, needed, condition))
}

fn advised((rule, alert): (BuiltIn, Alert), advice: impl Into<String>) -> (BuiltIn, Alert) {
    (rule, alert.with_advice(advice))
}

fn non_finite() -> (BuiltIn, Alert) {
    let advice = "a loss or gradient that is not finite does not update the weights; lower train.optimizer.lr, or look at the \
                  data of these steps";
    advised(rule(BuiltIn::NonFinite, "loss", 1, NonFinite), advice)
}

fn loss_spike() -> (BuiltIn, Alert) {
    let conditions =
        MetricAlert { metric: "loss".into(), spike: Some(5.0), window: Some(50), ..MetricAlert::default() };
    let advice = "lower train.optimizer.lr, clip harder (train.optimizer.clip), or look at the data of these steps";
    advised(rule(BuiltIn::LossSpike, "loss", 3, OfMetric::new(conditions)), advice)
}

fn dead_gradients() -> (BuiltIn, Alert) {
    let condition = Zero { metric: "grad_norm", meaning: "the gradient is exactly 0" };
    let advice = "nothing is learned. If no step had a gradient, check the objective's cotangents and which tokens are \
                  supervised; if earlier steps had one, training has probably diverged: lower train.optimizer.lr, or raise \
                  train.schedule.warmup; with rewards, check whether all of them are equal";
    let (rule, alert) = advised(rule(BuiltIn::DeadGradients, "grad_norm", 3, condition), advice);
    (rule, alert.also_for_short_runs())
}

fn equal_rewards() -> (BuiltIn, Alert) {
    let condition = Zero { metric: SPREAD, meaning: "all rewards of the rollout are equal" };
    let advice = "they do not distinguish any answers; check the rewards and samples.jsonl";
    let (rule, alert) = advised(rule(BuiltIn::EqualRewards, SPREAD, 2, condition), advice);
    (rule, alert.also_for_short_runs())
}

fn healthy_range(metric: String, range: (f64, f64), meaning: &str) -> (BuiltIn, Alert) {
    let quantity = Quantity { metric: metric.clone(), per: None };
    let condition = Outside { quantity, range, called: "its healthy range" };
    advised(rule(BuiltIn::HealthyRange, &metric, 5, condition), meaning)
}

fn kl_runaway(metric: String, per: Option<String>) -> (BuiltIn, Alert) {
    let per = per.map(|length| (length, "per token"));
    let quantity = Quantity { metric: metric.clone(), per };
    let condition = Outside { quantity, range: (f64::NEG_INFINITY, MOST_KL), called: "the usual range" };
    let advice = "in nats, the policy is so far from the reference that a reward model may no longer apply to its answers; raise \
                  the coefficient of the KL, or lower train.optimizer.lr";
    advised(rule(BuiltIn::KlRunaway, &metric, 3, condition), advice)
}

fn entropy_collapse(metric: String) -> (BuiltIn, Alert) {
    let condition = Collapse { metric: metric.clone(), share: 0.05, count: 5, first: Vec::new() };
    let advice = "the policy answers nearly always the same, so that rollouts show nothing new; raise the temperature or the \
                  coefficient of the entropy or KL, or lower train.optimizer.lr";
    advised(rule(BuiltIn::EntropyCollapse, &metric, 5, condition), advice)
}

/// The rules that compare the trained rewards with each reward of weight 0, and, if a reward model is trained against, with the
/// length of answers.
fn reward_hacking(rewards: &[Reward], length: Option<String>) -> Vec<(BuiltIn, Alert)> {
    let named: Vec<(String, &Reward)> =
        reward_names(rewards).iter().map(|name| format!("reward/{name}")).zip(rewards).collect();
    let trained: Vec<(String, f64)> = named
        .iter()
        .filter(|(_, reward)| reward.weight != 0.0)
        .map(|(name, reward)| (name.clone(), reward.weight))
        .collect();
    if trained.is_empty() {
        return Vec::new();
    }
    let learned = |reward: &Reward| reward.weight > 0.0 && matches!(reward.source, RewardSource::Model { .. });
    let measured =
        named.iter().filter(|(_, reward)| reward.weight == 0.0).map(|(name, _)| Against::Measured(name.clone()));
    let length = length.filter(|_| rewards.iter().any(learned)).map(Against::Length);
    let all = measured.chain(length).map(|against| {
        let (metric, advice) = match &against {
            Against::Measured(metric) => (metric.clone(), "the trained reward no longer agrees with the measured one"),
            Against::Length(metric) => (metric.clone(), "the reward model may prefer long answers whatever they say"),
        };
        let advice = format!(
            "{advice}; raise the coefficient of the KL, stop earlier, or train the reward on answers like these"
        );
        advised(rule(BuiltIn::RewardHacking, &metric, 2, Hacking::new(trained.clone(), against)), advice)
    });
    all.collect()
}
