//! Creates the experiment's objectives.

use super::Setup;
use crate::{
    config::Mistakes,
    error::{Error, Result},
    objectives::{Objectives, active::Active},
    runs::breadcrumb,
};

/// Whether a plugin's refusal is about the option of this name: it begins with it, or, if it begins with none, mentions it.
fn names_option(message: &str, option: &str) -> bool {
    match subject(message) {
        Some(named) => named == option,
        None => message.contains(&format!("`{option}`")),
    }
}

/// The option that a message is about: "option `NAME`" or "option NAME:".
fn subject(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("option ")?;
    let quoted = rest.strip_prefix('`').and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
    let plain = || rest.split_once(':').map(|(name, _)| name).filter(|name| !name.contains(' '));
    quoted.or_else(plain)
}

impl Setup {
    /// Creates the objectives.
    ///
    /// # Errors
    /// Errors of plugins; a request error for anything that this host does not offer.
    pub fn objectives(&self) -> Result<Objectives> {
        let mut mistakes = self.loaded.mistakes();
        let objectives = self.objectives_or_mistakes(&mut mistakes)?;
        mistakes.finish()?;
        objectives.ok_or_else(|| Error::run("the objectives were not created"))
    }

    /// As [`Setup::objectives`]; mistakes are collected. `None` if there are any in the objectives.
    ///
    /// # Errors
    /// Errors of plugins that are not mistakes.
    pub fn objectives_or_mistakes(&self, mistakes: &mut Mistakes) -> Result<Option<Objectives>> {
        let wanted = &self.experiment().objective;
        let several = wanted.len() > 1;
        // A source that is misspelt is the mistake, not the kind of its data.
        let kind = mistakes.are_free(&["data.source"]).then(|| self.data_kind());
        let (mut all, mut complete) = (Vec::with_capacity(wanted.len()), true);
        for (index, ((library, manifest), own)) in self.objectives.iter().zip(wanted).enumerate() {
            if self.has_own_text(index, manifest) {
                continue;
            }
            let twice = wanted.iter().filter(|other| other.plugin == own.plugin).count() > 1;
            let prefix = match (several, twice) {
                (false, _) => String::new(),
                (true, false) => format!("{}/", own.plugin),
                (true, true) => format!("{}.{index}/", own.plugin),
            };
            let instance = breadcrumb::within(&own.plugin, "create", || library.objective(&own.options));
            let active = instance.map_err(Error::from).and_then(|instance| {
                Active::new(
                    &own.plugin,
                    own.weight,
                    prefix,
                    manifest.clone(),
                    Box::new(instance),
                    kind.as_deref().unwrap_or(manifest.data.as_str()),
                )
            });
            let key = match &active {
                Ok(_) => String::new(),
                Err(error) => self.loaded.option_key(index, |name, _| names_option(error.message(), name)),
            };
            let active = mistakes.check(&key, active)?;
            complete &= active.is_some();
            all.extend(active.map(|active| active.of_table(index)));
        }
        if !complete {
            return Ok(None);
        }
        let Some(mut objectives) = mistakes.check("objective", Objectives::new(all))? else { return Ok(None) };
        objectives.limit(self.config.vocab, self.config.context as usize);
        if let Some(rollout) = &self.experiment().rollout {
            objectives.set_temperature(rollout.temperature);
        }
        Ok(Some(objectives))
    }
}

#[cfg(test)]
mod tests {
    use super::names_option;

    /// Catches a refusal that is placed at the line of another option, which it only mentions.
    #[test]
    fn a_refusal_is_about_the_option_that_it_begins_with() {
        let about = |message: &str| ["delta", "clip_high", "top_k"].map(|option| names_option(message, option));
        assert_eq!(about("grpo: option `delta`: 1.1 is not above 1 + `clip_high`"), [true, false, false]);
        assert_eq!(about("grpo: option delta: 1.1 is not above 1 + `clip_high`"), [true, false, false]);
        assert_eq!(about("options `top_k` and `clip_high`: one of them"), [false, true, true]);
    }
}
