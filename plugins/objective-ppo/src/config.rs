//! Options of PPO, which combinations are refused, and what they require of the host.

use crate::kl::{ESTIMATORS, Estimator};
use plugin_api::{
    manifest::OptionSpec,
    options::{OptionSet, named_twice},
    prelude::*,
};

options! {
    /// Options of PPO.
    pub struct Config {
        /// Coefficient of the KL penalty in the reward; with `kl_control = "adaptive"`, its first value.
        kl_coef: f64 = 0.05, from 0.0;
        /// Estimator of a token's KL in the reward's penalty, from d = logp - reference.logp: `k1` is d (as in TRL and torchtune,
        /// unbiased), `k2` d^2 / 2 (TRL's `mse`), `k3` exp(-d) - 1 + d (unbiased and never negative), `abs` |d|.
        kl_penalty: String = "k1".into(), of ESTIMATORS.iter().map(|row| row.name);
        /// Whether the coefficient is constant (`fixed`, as in TRL 0.16) or adapts to the measured KL (`adaptive`, Ziegler et al.).
        kl_control: String = "fixed".into(), of ["fixed", "adaptive"];
        /// Target of the adaptive coefficient: the KL in nats per answer; above 0.
        kl_target: f64 = 6.0, from 0.0;
        /// Number of answers over which the adaptive coefficient may change by a fifth; above 0.
        kl_horizon: f64 = 10000.0, from 0.0;
        /// Penalty on the score of a truncated answer, one without an end-of-text token.
        missing_eos_penalty: f64 = 0.0, from 0.0;
        /// How the penalty changes the score of a truncated answer: `subtract` subtracts it (TRL 0.16), `replace` replaces the
        /// score by minus the penalty (torchtune, and the "EOS trick" of N+).
        missing_eos: String = "subtract".into(), of ["subtract", "replace"];
        /// Names of rewards whose numbers per token are added to the token rewards, such as a process reward model's: each with
        /// weight 1. A reward's weight in the experiment applies only to its number per answer.
        token_rewards: Vec<String> = Vec::new();
        /// Return after the last token of a truncated answer: `terminal` is 0 (TRL, torchtune), `bootstrap` is the
        /// critic's value of the state after it.
        truncated: String = "terminal".into(), of ["terminal", "bootstrap"];
        /// Discount per token.
        gamma: f64 = 1.0, in 0.0..=1.0;
        /// Decay of generalised advantage estimation: 0 is one step of temporal difference, 1 the whole return.
        gae_lambda: f64 = 0.95, in 0.0..=1.0;
        /// Scale advantages to mean 0 and variance 1 over the rollout's supervised tokens.
        whiten_advantages: bool = true;
        /// Scale token rewards to variance 1 (keeping the mean) over the rollout's supervised tokens, before estimating advantages.
        whiten_rewards: bool = false;
        /// Clip range of the probability ratio around 1; above 0.
        clip_range: f64 = 0.2, in 0.0..=1.0;
        /// Clip range of the critic's value around the rollout's value; 0: no clipping.
        value_clip_range: f64 = 0.2, from 0.0;
        /// Weight of the value term, which includes a factor of one half (TRL's `vf_coef`).
        value_coef: f64 = 0.1, from 0.0;
        /// Weight of the entropy bonus; 0 leaves it out.
        entropy_coef: f64 = 0.0, from 0.0;
        /// Report the policy's exact entropy, which costs some time in the head; training does not change.
        report_entropy: bool = true;
        /// End the rollout after a step whose `policy/approxkl_avg` is above this; 0: never.
        target_kl: f64 = 0.0, from 0.0;
    }
}

/// Checked options, with the table row that they name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As given.
    pub config: Config,
    /// The row of the table of estimators.
    pub estimator: &'static Estimator,
}

impl Settings {
    /// Looks the names up and refuses what the declared ranges cannot express, all mistakes at once.
    ///
    /// # Errors
    /// [`Code::OPTION`] naming each key, its value and the legal values.
    pub fn new(config: Config) -> Result<Self> {
        let Some(estimator) = ESTIMATORS.iter().find(|e| e.name == config.kl_penalty) else {
            return Err(Error::new(Code::OPTION, format!("option `kl_penalty`: `{}` is unknown", config.kl_penalty)));
        };
        let settings = Self { config, estimator };
        let wrong: Vec<String> = [settings.positive(), settings.twice(), settings.misplaced()].concat();
        if wrong.is_empty() { Ok(settings) } else { Err(Error::new(Code::OPTION, wrong.join("; "))) }
    }

    /// Rewards that are named twice.
    fn twice(&self) -> Vec<String> {
        named_twice("token_rewards", &self.config.token_rewards).into_iter().collect()
    }

    /// Numbers whose range excludes its lower end.
    fn positive(&self) -> Vec<String> {
        let c = &self.config;
        let all = [
            ("clip_range", c.clip_range, true),
            ("kl_coef", c.kl_coef, self.adapts()),
            ("kl_target", c.kl_target, true),
            ("kl_horizon", c.kl_horizon, true),
        ];
        let wrong = all.iter().filter(|(_, value, applies)| *applies && *value <= 0.0);
        wrong.map(|(key, value, _)| format!("option `{key}`: {value} is not above 0")).collect()
    }

    /// Options that would silently be ignored.
    fn misplaced(&self) -> Vec<String> {
        let c = &self.config;
        let fixed = |key: &str, value: f64| self.adapts() || default_of(key) == Some(value);
        let given = [
            ("kl_target", fixed("kl_target", c.kl_target), "it has no effect with `kl_control = \"fixed\"`"),
            ("kl_horizon", fixed("kl_horizon", c.kl_horizon), "it has no effect with `kl_control = \"fixed\"`"),
            (
                "report_entropy",
                c.report_entropy || c.entropy_coef == 0.0,
                "an `entropy_coef` above 0 reads the entropy, so it is always reported",
            ),
        ];
        let wrong = given.iter().filter(|(_, fits, _)| !fits);
        wrong.map(|(key, _, why)| format!("option `{key}`: {why}")).collect()
    }

    /// Whether the coefficient of the penalty follows the KL.
    pub fn adapts(&self) -> bool {
        self.config.kl_control == "adaptive"
    }

    /// Whether a truncated answer continues with the critic's value.
    pub fn bootstraps(&self) -> bool {
        self.config.truncated == "bootstrap"
    }

    /// Whether the policy's entropy is read.
    pub fn reads_entropy(&self) -> bool {
        self.config.report_entropy || self.config.entropy_coef > 0.0
    }

    /// A statistic that nothing reads is not requested.
    pub fn requirements(&self) -> Requirements {
        let statistics = [
            ("logp", true),
            ("entropy", self.reads_entropy()),
            ("reference.logp", true),
            ("critic.value", true),
            ("critic.value_end", self.bootstraps()),
        ];
        let read = statistics.into_iter().filter(|(_, read)| *read).map(|(name, _)| name);
        // Rewards per token are enough.
        let token_rewards = &self.config.token_rewards;
        Requirements {
            rewards: token_rewards.is_empty(),
            reward_names: token_rewards.iter().map(|name| format!("{name}.token")).collect(),
            requests: false,
            // What couples the answers of a rollout is computed by `prepare`.
            whole_groups: false,
            ..Requirements::reading(read)
        }
    }
}

fn default_of(key: &str) -> Option<f64> {
    let specs: Vec<OptionSpec> = Config::specs();
    specs.iter().find(|spec| spec.name == key)?.default.as_f64()
}
