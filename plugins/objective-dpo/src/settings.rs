//! Checked options: which combinations are refused, and what they require of the host.

use crate::{
    config::Config,
    divergence::{DIVERGENCES, Divergence},
    losses::{LOSSES, LossOptions, PreferenceLoss, Shape},
};
use plugin_api::{manifest::OptionSpec, options::OptionSet, prelude::*};

/// Checked options, with the table rows that they name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As given.
    pub config: Config,
    /// The row of the table of losses.
    pub loss: &'static PreferenceLoss,
    /// The row of the table of divergences.
    pub divergence: &'static Divergence,
}

impl Settings {
    /// Looks the names up and refuses what the declared ranges cannot express, all mistakes at once.
    ///
    /// # Errors
    /// [`Code::OPTION`] naming each key, its value and the legal values.
    pub fn new(config: Config) -> Result<Self> {
        let loss = LOSSES.iter().find(|loss| loss.name == config.loss);
        let divergence = DIVERGENCES.iter().find(|divergence| divergence.name == config.divergence);
        let (Some(loss), Some(divergence)) = (loss, divergence) else {
            let why = format!("option `loss` or `divergence`: `{}`, `{}` are unknown", config.loss, config.divergence);
            return Err(Error::new(Code::OPTION, why));
        };
        let settings = Self { config, loss, divergence };
        let wrong: Vec<String> = [settings.positive(), settings.smoothing(), settings.misplaced()].concat();
        if wrong.is_empty() { Ok(settings) } else { Err(Error::new(Code::OPTION, wrong.join("; "))) }
    }

    /// Numbers whose range excludes its lower end.
    fn positive(&self) -> Vec<String> {
        let c = &self.config;
        let all = [("beta", c.beta), ("divergence_alpha", c.divergence_alpha), ("discopop_tau", c.discopop_tau)];
        let wrong = all.iter().filter(|(_, value)| *value <= 0.0);
        wrong.map(|(key, value)| format!("option `{key}`: {value} is not above 0")).collect()
    }

    /// `label_smoothing` has three meanings, and no effect on most losses.
    fn smoothing(&self) -> Vec<String> {
        let epsilon = self.config.label_smoothing;
        let why = match self.loss.name {
            "robust" if epsilon >= 0.5 => "0.5 divides by 0 in `loss = \"robust\"`; it must be below 0.5".to_owned(),
            "exo" if epsilon == 0.0 => {
                "0 gives the logarithm of 0 in `loss = \"exo\"`; it must be above 0, for example 0.001".to_owned()
            }
            name if epsilon > 0.0 && !self.loss.smooths => {
                format!("`loss = \"{name}\"` does not use it; leave it at 0")
            }
            _ => return Vec::new(),
        };
        vec![format!("option `label_smoothing`: {why}")]
    }

    /// Options that the chosen loss would silently ignore.
    fn misplaced(&self) -> Vec<String> {
        let (loss, default) = (self.loss, |key: &str| default_of(key));
        let margin_of_sums = matches!(loss.shape, Shape::Margin(_)) && !loss.averages;
        let sums = !matches!(loss.shape, Shape::None) && !loss.averages;
        let alpha = self.config.divergence == "alpha";
        let given = [
            ("divergence", margin_of_sums || self.config.divergence == DIVERGENCES[0].name),
            ("divergence_alpha", alpha || default("divergence_alpha") == Some(self.config.divergence_alpha)),
            ("ld_alpha", sums || self.config.ld_alpha == 1.0),
            ("discopop_tau", loss.name == "discopop" || default("discopop_tau") == Some(self.config.discopop_tau)),
            ("sft_weight", !matches!(loss.shape, Shape::None) || self.config.sft_weight == 0.0),
        ];
        let wrong = given.iter().filter(|(_, fits)| !fits);
        wrong.map(|(key, _)| format!("option `{key}`: it has no effect with {}", self.context(key))).collect()
    }

    fn context(&self, key: &str) -> String {
        match key {
            "divergence_alpha" => format!("`divergence = \"{}\"`", self.config.divergence),
            _ => format!("`loss = \"{}\"`", self.loss.name),
        }
    }

    /// What the loss reads of the options.
    pub fn loss_options(&self) -> LossOptions {
        let Config { beta, label_smoothing, discopop_tau, .. } = self.config;
        LossOptions { beta, label_smoothing, discopop_tau }
    }

    /// Coefficient of the likelihood term; 0 if there is none.
    pub fn sft_coefficient(&self) -> f64 {
        if matches!(self.loss.shape, Shape::None) { 1.0 } else { self.config.sft_weight }
    }

    /// Whether tokens beyond the shorter answer have less weight.
    pub fn discounts_length(&self) -> bool {
        self.config.ld_alpha < 1.0
    }

    /// The reference is not requested if nothing reads it. The window of a loss that sorts over the batch cannot be split.
    pub fn requirements(&self) -> Requirements {
        let statistics = [("logp", true), ("reference.logp", !self.config.reference_free)];
        let read = statistics.into_iter().filter(|(_, read)| *read).map(|(name, _)| name);
        Requirements { coupled: matches!(self.loss.shape, Shape::Sorted(_)), ..Requirements::reading(read) }
    }
}

fn default_of(key: &str) -> Option<f64> {
    let specs: Vec<OptionSpec> = Config::specs();
    specs.iter().find(|spec| spec.name == key)?.default.as_f64()
}
