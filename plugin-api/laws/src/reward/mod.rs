//! The laws of rewards: properties of every score that a policy learns from.
//!
//! An author calls [`verify`] (or [`Laws`], with options) from one test; a loaded plugin goes through [`Laws::new`].
//!
//! | law | what must hold | what breaks it |
//! |---|---|---|
//! | `manifest` | summary, meanings of options, columns that differ | a column declared twice |
//! | `options` | the options given make an instance; illegal values are refused, naming the key | a check forgotten |
//! | `finite` | one finite score for each sample, and none for no sample | a mean over no words |
//! | `repeatable` | the same samples, again and on another instance, have the same scores to the bit | a random number, a clock |
//! | `independent` | a sample's score depends neither on the other samples nor on their order | a rank within the batch |
//! | `columns` | the declared columns suffice; a missing one is refused by name | a column that is read and not declared |
//! | `empty` | an empty completion, ended or cut off, has a score | a first word that is not there |
//! | `ratings` | `rate` returns the scores of `score`, the declared parts, and spans in the text; it does not depend on the other samples | a span in bytes, a rank within the batch |
//! | `unusual` | text of any script, length and control characters is scored, or refused with an error | a panic inside a character |
//!
//! A reward may refuse prompts of an unknown form: give it one that it accepts ([`Laws::with_prompt`]).

mod checks;
mod fault;

use crate::{Broken, Report};
use fault::{Fault, Outcome, describe};
use plugin_api::{
    Result,
    export::guard,
    manifest::{ColumnValue, RewardColumn, RewardManifest},
    options::{OptionMap, OptionSet},
    reward::{Column, Reward, RewardPlugin, Sample},
};

/// The laws by name, with what each means, in the order in which they are checked.
pub const LAWS: &[(&str, &str)] = &[
    ("manifest", "it is complete: summary, meanings of options with defaults within range, columns that differ"),
    ("options", "the options given make an instance; illegal values are refused, naming the key"),
    ("finite", "one finite score for each sample, and none for no sample"),
    ("repeatable", "the same samples, again and on another instance, have the same scores to the bit"),
    ("independent", "a sample's score depends neither on the other samples nor on their order"),
    ("columns", "the declared columns suffice; a missing one is refused by name"),
    ("empty", "an empty completion, ended or cut off, has a score"),
    ("ratings", "`rate` returns the scores, the declared parts and spans in the text, whatever the other samples are"),
    ("unusual", "text of any script, length and control characters is scored, or refused with an error"),
];

type Create = Box<dyn Fn(&OptionMap) -> Result<Box<dyn Reward>>>;

/// Verifies reward `T` under `options`. See the [table](self).
pub fn verify<T: RewardPlugin>(options: &OptionMap) -> Report {
    let manifest = guard::catch("", "manifest", || Ok(T::manifest())).unwrap_or_default();
    let manifest = RewardManifest { options: T::Options::specs(), ..manifest };
    Laws::new(manifest, |options| T::create(T::Options::parse(options)?)).with_options(options.clone()).verify()
}

/// What is verified, and on which samples.
pub struct Laws {
    manifest: RewardManifest,
    create: Create,
    options: OptionMap,
    prompts: Vec<String>,
    only: Option<Vec<String>>,
    watch: Box<dyn Fn(&str)>,
}

/// Completions of the samples: right and wrong answers, short and long.
const COMPLETIONS: &[&str] =
    &["42", "The answer is 42.", "I do not know, but it may be 7 or 42.", "no", "one two three\nfour five six"];

impl Laws {
    /// The laws for anything with a manifest and instances, such as a loaded plugin.
    pub fn new<R: Reward + 'static>(
        manifest: RewardManifest,
        create: impl Fn(&OptionMap) -> Result<R> + 'static,
    ) -> Self {
        Self {
            manifest,
            create: Box::new(move |options| Ok(Box::new(create(options)?))),
            options: OptionMap::new(),
            prompts: Vec::new(),
            only: None,
            watch: Box::new(|_| ()),
        }
    }

    /// Replaces the default options.
    #[must_use]
    pub fn with_options(mut self, options: OptionMap) -> Self {
        self.options = options;
        self
    }

    /// A prompt that the reward accepts. Default: an arithmetic question.
    #[must_use]
    pub fn with_prompt(mut self, prompt: &str) -> Self {
        self.prompts.push(prompt.to_owned());
        self
    }

    /// Checks only these laws, by the names of [`LAWS`].
    #[must_use]
    pub fn only(mut self, laws: &[&str]) -> Self {
        self.only = Some(laws.iter().map(|law| (*law).to_owned()).collect());
        self
    }

    /// Calls `watch` with the law before each of them.
    #[must_use]
    pub fn watched(mut self, watch: impl Fn(&str) + 'static) -> Self {
        self.watch = Box::new(watch);
        self
    }

    /// Checks that the reward scores the samples.
    ///
    /// # Errors
    /// Its error for the first sample: it does not know the prompt, or an option is missing.
    pub fn ready(&self) -> Result<()> {
        let samples = self.samples();
        guard::catch("", "score", || self.instance()?.score(&samples[..1]).map(drop))
    }

    /// Checks every law.
    pub fn verify(&self) -> Report {
        let mut report = Report::default();
        let laws: [(&str, Law); 9] = [
            ("manifest", Laws::manifest),
            ("options", Laws::legal),
            ("finite", Laws::finite),
            ("repeatable", Laws::repeatable),
            ("independent", Laws::independent),
            ("columns", Laws::columns),
            ("empty", Laws::empty),
            ("ratings", Laws::ratings),
            ("unusual", Laws::unusual),
        ];
        for (law, check) in laws {
            if self.only.as_ref().is_some_and(|only| !only.iter().any(|name| name == law)) {
                continue;
            }
            (self.watch)(law);
            let case = crate::told(&self.manifest.options, &self.options);
            match guard::catch("", law, || Ok(check(self))) {
                Ok(Ok(note)) => report.uphold(law, &case, note, None),
                Ok(Err(Fault { text, agreement, sample })) => {
                    report.refute(law, &case, Broken { text, agreement }, sample.map(|sample| describe(&sample)));
                }
                Err(panic) => report.push(law, &case, Err(panic.to_string())),
            }
        }
        report
    }

    fn instance(&self) -> Result<Box<dyn Reward>> {
        (self.create)(&self.options)
    }

    /// Whether columns are texts; some rewards read numbers.
    fn texts(&self) -> bool {
        let tried = |text: bool| {
            let samples = self.samples_with(text);
            guard::catch("", "score", || self.instance()?.score(&samples[..1])).is_ok()
        };
        tried(true) || !tried(false)
    }

    fn samples(&self) -> Vec<Sample> {
        self.samples_with(self.manifest.declared_columns().is_empty() || self.texts())
    }

    fn samples_with(&self, text: bool) -> Vec<Sample> {
        let sum = ["What is 12 + 30?".to_owned()];
        let prompts = if self.prompts.is_empty() { &sum[..] } else { &self.prompts };
        let value = if text { Column::Text("42".into()) } else { Column::Number(42.0) };
        let filled = |column: RewardColumn| {
            let own = match column.value == ColumnValue::TEXT {
                true => Column::Text("42".into()),
                false if column.value == ColumnValue::NUMBER => Column::Number(42.0),
                false => value.clone(),
            };
            (column.name, own)
        };
        let columns: Vec<(String, Column)> = self.manifest.declared_columns().into_iter().map(filled).collect();
        let answers = prompts.iter().flat_map(|prompt| COMPLETIONS.iter().map(move |text| (prompt, text)));
        let sample = |(i, (prompt, text)): (usize, (&String, &&str))| Sample {
            prompt: prompt.clone(),
            completion: (*text).to_owned(),
            ended: i % 3 != 1,
            columns: columns.clone(),
        };
        answers.enumerate().map(sample).collect()
    }

    /// The scores, one finite number for each sample.
    fn scores(&self, reward: &dyn Reward, samples: &[Sample]) -> std::result::Result<Vec<f64>, Fault> {
        let scores = reward.score(samples).map_err(|e| Fault::of(samples.first(), e.to_string()))?;
        if scores.len() != samples.len() {
            return Err(Fault::of(None, format!("{} scores for {} samples", scores.len(), samples.len())));
        }
        match scores.iter().position(|score| !score.is_finite()) {
            Some(at) => Err(Fault::of(samples.get(at), format!("the score is {}", scores[at]))),
            None => Ok(scores),
        }
    }
}

type Law = fn(&Laws) -> Outcome;

#[cfg(test)]
mod tests;
