//! Checked options: which combinations are refused, and what they require of the host.

use crate::{
    advantages::{BASELINES, Row, SCALES},
    config::Config,
    kl::{ESTIMATORS, Estimator},
    surrogates::{SURROGATES, Surrogate},
};
use plugin_api::{
    manifest::{OptionSpec, TermNormaliser},
    options::{OptionSet, named_twice},
    prelude::*,
};

/// The name of the surrogate's term.
pub const POLICY: &str = "policy";
/// The name of the term of the KL to the reference.
pub const KL: &str = "kl";

/// Checked options, with the table rows that they name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As given.
    pub config: Config,
    /// What is subtracted from a reward.
    pub baseline: &'static Row,
    /// What divides the difference.
    pub scale: &'static Row,
    /// The loss of a token.
    pub surrogate: &'static Surrogate,
    /// The estimator of the KL.
    pub estimator: &'static Estimator,
}

impl Settings {
    /// Looks the names up and refuses what the declared ranges cannot express, all mistakes at once.
    ///
    /// # Errors
    /// [`Code::OPTION`] naming each key, its value and the legal values.
    pub fn new(config: Config) -> Result<Self> {
        let rows = (
            BASELINES.iter().find(|row| row.name == config.baseline),
            SCALES.iter().find(|row| row.name == config.scale),
            SURROGATES.iter().find(|row| row.name == config.loss),
            ESTIMATORS.iter().find(|row| row.name == config.kl),
        );
        let (Some(baseline), Some(scale), Some(surrogate), Some(estimator)) = rows else {
            let Config { baseline, scale, loss, kl, .. } = &config;
            let why = format!(
                "one of the options `baseline`, `scale`, `loss`, `kl` is unknown: {baseline}, {scale}, {loss}, {kl}"
            );
            return Err(Error::new(Code::OPTION, why));
        };
        let settings = Self { config, baseline, scale, surrogate, estimator };
        let wrong: Vec<String> =
            [settings.positive(), settings.twice(), settings.aggregation(), settings.lengths(), settings.misplaced()]
                .concat();
        if wrong.is_empty() { Ok(settings) } else { Err(Error::new(Code::OPTION, wrong.join("; "))) }
    }

    /// Rewards that are named twice.
    fn twice(&self) -> Vec<String> {
        let c = &self.config;
        let lists = [named_twice("rewards", &c.rewards), named_twice("token_rewards", &c.token_rewards)];
        lists.into_iter().flatten().collect()
    }

    /// Numbers whose range excludes its lower end.
    fn positive(&self) -> Vec<String> {
        let c = &self.config;
        let [low, high] = self.surrogate.clips;
        let all = [
            ("clip_low", c.clip_low, low),
            ("clip_high", c.clip_high, high),
            ("tau_positive", c.tau_positive, true),
            ("tau_negative", c.tau_negative, true),
            ("importance_cap", c.importance_cap, true),
        ];
        let wrong = all.iter().filter(|(_, value, applies)| *applies && *value <= 0.0);
        wrong.map(|(key, value, _)| format!("option `{key}`: {value} is not above 0")).collect()
    }

    /// The rewards of `normalize-then-sum`.
    fn aggregation(&self) -> Vec<String> {
        let (c, mut wrong) = (&self.config, Vec::new());
        let mut refuse = |key: &str, why: &str| wrong.push(format!("option `{key}`: {why}"));
        if !self.decouples() {
            let why = "it has no effect with `aggregation = \"sum-then-normalize\"`";
            let given = [("rewards", c.rewards.is_empty()), ("reward_weights", c.reward_weights.is_empty())];
            given.iter().filter(|(_, empty)| !empty).for_each(|(key, _)| refuse(key, why));
            return wrong;
        }
        if c.rewards.is_empty() {
            refuse("rewards", "`aggregation = \"normalize-then-sum\"` needs the names of the rewards to normalise");
        }
        if ![0, c.rewards.len()].contains(&c.reward_weights.len()) {
            let (weights, rewards) = (c.reward_weights.len(), c.rewards.len());
            refuse("reward_weights", &format!("{weights} weights for {rewards} rewards; give one for each, or none"));
        }
        let why = "`aggregation = \"normalize-then-sum\"` is defined only with";
        for (key, value) in [("baseline", &c.baseline), ("scale", &c.scale)] {
            if value != "group" {
                refuse(key, &format!("{why} `{key} = \"group\"`"));
            }
        }
        if c.overlong_buffer > 0 {
            refuse("overlong_buffer", &format!("{why}out it: give the penalty as a reward of its own"));
        }
        wrong
    }

    /// The longest answer, and what reads it.
    fn lengths(&self) -> Vec<String> {
        let c = &self.config;
        let (constant, overlong) = (c.normaliser == "constant", c.overlong_buffer > 0);
        let why = match c.max_length {
            0 if constant => "`normaliser = \"constant\"` needs it: give the experiment's rollout.max_new_tokens",
            0 if overlong => "`overlong_buffer` needs it: give the experiment's rollout.max_new_tokens",
            1.. if !constant && !overlong => {
                "it has no effect without `normaliser = \"constant\"` or an `overlong_buffer`"
            }
            length if overlong && length < c.overlong_buffer => "it is less than `overlong_buffer`",
            _ => return Vec::new(),
        };
        vec![format!("option `max_length`: {} is not valid, {why}", c.max_length)]
    }

    /// Options that would silently be ignored.
    fn misplaced(&self) -> Vec<String> {
        let c = &self.config;
        let number = |key: &str, value: f64| default_of(key) == Some(value);
        let by_loss = format!("it has no effect with `loss = \"{}\"`", c.loss);
        let ([low, high], is) = (self.surrogate.clips, |name: &str| c.loss == name);
        let beyond = format!("{} is not above 1 + `clip_high` = {}", c.delta, 1.0 + c.clip_high);
        let given = [
            ("clip_low", low || number("clip_low", c.clip_low), by_loss.as_str()),
            ("clip_high", high || number("clip_high", c.clip_high), &by_loss),
            ("delta", is("clip") || c.delta == 0.0, &by_loss),
            ("delta", c.delta == 0.0 || c.delta > 1.0 + c.clip_high, &beyond),
            ("tau_positive", is("sapo") || number("tau_positive", c.tau_positive), &by_loss),
            ("tau_negative", is("sapo") || number("tau_negative", c.tau_negative), &by_loss),
            ("level", !is("reinforce") || c.level == "token", &by_loss),
            ("kl", self.reads_reference() || c.kl == "k3", "it has no effect with `kl_coef = 0`"),
            ("kl_weighted", self.reads_reference() || !c.kl_weighted, "it has no effect with `kl_coef = 0`"),
            (
                "kl_weighted",
                c.kl != "k2" || !c.kl_weighted,
                "`kl = \"k2\"` has the KL's gradient without it, and another one with it",
            ),
            (
                "overlong_penalty",
                c.overlong_buffer > 0 || number("overlong_penalty", c.overlong_penalty),
                "it has no effect with `overlong_buffer = 0`",
            ),
            (
                "importance_cap",
                self.reads_sampler() || number("importance_cap", c.importance_cap),
                "it has no effect with `importance = \"none\"`",
            ),
            (
                "dynamic",
                !c.dynamic || c.token_rewards.is_empty(),
                "with `token_rewards`, answers with equal rewards can still teach something",
            ),
            (
                "dynamic",
                !c.dynamic || !self.decouples(),
                "with `aggregation = \"normalize-then-sum\"`, answers with equal sums of rewards can still teach something",
            ),
            (
                "dynamic",
                !c.dynamic || self.compares(),
                "answers with equal rewards teach nothing only with `baseline = \"group\"` or `\"leave-one-out\"`",
            ),
        ];
        let wrong = given.iter().filter(|(_, fits, _)| !fits);
        wrong.map(|(key, _, why)| format!("option `{key}`: {why}")).collect()
    }

    /// Whether each reward is normalised before they are added.
    pub fn decouples(&self) -> bool {
        self.config.aggregation == "normalize-then-sum"
    }

    /// Whether answers are compared with the others to the same prompt.
    fn compares(&self) -> bool {
        ["group", "leave-one-out"].contains(&self.baseline.name)
    }

    /// Whether the ratio is that of whole answers.
    pub fn by_sequence(&self) -> bool {
        self.config.level == "sequence"
    }

    /// Whether each answer's tokens are averaged.
    pub fn averages_sequences(&self) -> bool {
        self.config.normaliser == "sequence"
    }

    /// Whether the KL to the reference is in the loss.
    pub fn reads_reference(&self) -> bool {
        self.config.kl_coef > 0.0
    }

    /// Whether the sampler's probabilities are read.
    pub fn reads_sampler(&self) -> bool {
        self.config.importance != "none"
    }

    /// A statistic that nothing reads is not requested.
    pub fn requirements(&self) -> Requirements {
        let statistics = [
            ("logp", true),
            ("entropy", self.config.report_entropy),
            ("reference.logp", self.reads_reference()),
            ("sampler.logp", self.reads_sampler()),
        ];
        let read = statistics.into_iter().filter(|(_, read)| *read).map(|(name, _)| name);
        let grouped = self.compares() || self.scale.name == "group" || !self.config.token_rewards.is_empty();
        Requirements {
            normalisers: self.normalisers(),
            samples: if grouped { 2 } else { 1 },
            whole_groups: false,
            requests: self.config.dynamic,
            // An unused length is refused, so one that is given is read.
            max_new_tokens: u64::try_from(self.config.max_length)
                .ok()
                .filter(|length| *length > 0)
                .map(|tokens| GivenNumber::new(tokens, "max_length")),
            // Rewards per token are enough.
            rewards: self.config.token_rewards.is_empty(),
            reward_names: self.reward_names(),
            ..Requirements::reading(read)
        }
    }

    /// The arrays of single rewards that are read.
    fn reward_names(&self) -> Vec<String> {
        let decoupled = self.config.rewards.iter().filter(|_| self.decouples()).cloned();
        let by_token = self.config.token_rewards.iter().map(|name| format!("{name}.token"));
        decoupled.chain(by_token).collect()
    }

    /// What divides the terms, where it is not the number of answers.
    fn normalisers(&self) -> Vec<TermNormaliser> {
        let (normaliser, times) = match self.config.normaliser.as_str() {
            "token" => (Normaliser::SUPERVISED_TOKENS, 1.0),
            "constant" => (Normaliser::SEQUENCES, self.config.max_length as f64),
            _ => return Vec::new(),
        };
        let one = |term: &str| TermNormaliser::new(term, normaliser.clone()).times(times);
        [POLICY, KL].map(one).to_vec()
    }
}

fn default_of(key: &str) -> Option<f64> {
    let specs: Vec<OptionSpec> = Config::specs();
    specs.iter().find(|spec| spec.name == key)?.default.as_f64()
}
