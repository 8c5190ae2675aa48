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
//! | `unusual` | text of any script, length and control characters is scored, or refused with an error | a panic inside a character |
//!
//! A reward may refuse prompts that it does not know: give it one that it knows ([`Laws::with_prompt`]).

use crate::{
    Agreement, Broken, Report,
    options::{checked, required, within},
};
use plugin_api::{
    Code, Error, Result,
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

/// Text that programs often mishandle.
const UNUSUAL: &[(&str, &str)] = &[
    ("a byte order mark", "\u{feff}42"),
    ("emoji of several code points", "👩‍👩‍👧‍👦 42 🇪🇺"),
    ("combining marks", "e\u{301}\u{301}\u{301} A\u{30a}"),
    ("text from right to left", "الجواب هو ٤٢ \u{202e}24\u{202c}"),
    ("no letters", " \t\r\n\u{a0}\u{2028}\u{3000}"),
    ("control characters", "\0\u{1}\u{7f}\u{85}42\u{1b}[31m"),
    ("case that changes its length", "İıßſﬃ ΑΣ"),
    ("the highest code point", "\u{10ffff}"),
    ("brackets and signs", "\\((.*[)}]{3,}$^|?+"),
    ("a number out of range", "1e999999 -0 999999999999999999999999 0x7f NaN inf"),
];

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
        let laws: [(&str, Law); 8] = [
            ("manifest", Laws::manifest),
            ("options", Laws::legal),
            ("finite", Laws::finite),
            ("repeatable", Laws::repeatable),
            ("independent", Laws::independent),
            ("columns", Laws::columns),
            ("empty", Laws::empty),
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
                    report.refute(law, &case, Broken { text, agreement }, sample.map(|sample| told(&sample)));
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

    fn manifest(&self) -> Outcome {
        let m = &self.manifest;
        let mut wrong = Vec::new();
        if m.summary.trim().is_empty() {
            wrong.push("no summary".to_owned());
        }
        for (i, name) in m.columns.iter().enumerate() {
            if name.trim().is_empty() || m.columns[..i].contains(name) {
                wrong.push(format!("column {name:?} has no name or is declared twice"));
            }
        }
        for option in &m.options {
            if option.meaning.trim().is_empty() {
                wrong.push(format!("option `{}` has no meaning", option.name));
            }
            if !option.default.is_null() && !within(option, &option.default) {
                wrong.push(format!("option `{}`: its default {} is not legal", option.name, option.default));
            }
        }
        if wrong.is_empty() { Ok(String::new()) } else { Err(Fault::of(None, wrong.join("; "))) }
    }

    fn legal(&self) -> Outcome {
        let base = if self.instance().is_ok() {
            self.options.clone()
        } else {
            required(&self.manifest.options, &self.options)
        };
        let tried = checked(&self.manifest.options, &base, &|options| (self.create)(options).map(drop));
        Ok(format!("{} illegal values refused", tried.map_err(|why| Fault::of(None, why))?))
    }

    fn finite(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        for sample in &samples {
            self.scores(reward.as_ref(), std::slice::from_ref(sample))?;
        }
        let scores = self.scores(reward.as_ref(), &samples)?;
        self.scores(reward.as_ref(), &[]).map_err(|fault| fault.within("no sample"))?;
        let (low, high) = scores.iter().fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
        Ok(format!("{} samples score from {low} to {high}", samples.len()))
    }

    fn repeatable(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        let first = self.scores(reward.as_ref(), &samples)?;
        let (again, other) =
            (self.scores(reward.as_ref(), &samples)?, self.scores(self.instance()?.as_ref(), &samples)?);
        for (what, found) in [("a second call", again), ("another instance", other)] {
            same(&samples, &first, &found, what)?;
        }
        Ok(String::new())
    }

    fn independent(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        let together = self.scores(reward.as_ref(), &samples)?;
        let alone: Vec<f64> = samples
            .iter()
            .map(|sample| Ok(self.scores(reward.as_ref(), std::slice::from_ref(sample))?[0]))
            .collect::<std::result::Result<_, Fault>>()?;
        same(&samples, &together, &alone, "scored alone")?;
        let reversed: Vec<Sample> = samples.iter().rev().cloned().collect();
        let mut backwards = self.scores(reward.as_ref(), &reversed)?;
        backwards.reverse();
        same(&samples, &together, &backwards, "scored in reverse order")?;
        Ok(String::new())
    }

    fn columns(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        let first = self.scores(reward.as_ref(), &samples)?;
        let mut unread = Vec::new();
        for name in self.manifest.declared_columns().iter().map(|column| &column.name) {
            let without: Vec<Sample> = samples
                .iter()
                .map(|s| Sample {
                    columns: s.columns.iter().filter(|(n, _)| n != name).cloned().collect(),
                    ..s.clone()
                })
                .collect();
            match guard::catch("", "score", || reward_of(self)?.score(&without)) {
                Ok(scores) if scores == first => unread.push(name.clone()),
                Ok(_) => {}
                Err(e) if e.code == Code::PANIC => {
                    return Err(Fault::of(without.first(), format!("without the column `{name}`: {e}")));
                }
                Err(e) if !e.message.contains(name) => {
                    let why = format!("a row without the column `{name}` is refused without its name: {e}");
                    return Err(Fault::of(without.first(), why));
                }
                Err(_) => {}
            }
        }
        Ok(match unread.as_slice() {
            [] => String::new(),
            names => format!("the scores are the same without {}: are they read?", names.join(", ")),
        })
    }

    fn empty(&self) -> Outcome {
        let reward = self.instance()?;
        for sample in self.samples().iter().step_by(COMPLETIONS.len()) {
            for ended in [true, false] {
                let empty = Sample { completion: String::new(), ended, ..sample.clone() };
                self.scores(reward.as_ref(), &[empty])?;
            }
        }
        Ok(String::new())
    }

    fn unusual(&self) -> Outcome {
        let long = "ab ".repeat(50_000);
        let texts = UNUSUAL.iter().copied().chain([("150,000 characters", long.as_str())]);
        let (mut scored, mut refused) = (0, 0);
        for (what, text) in texts {
            for sample in [true, false].map(|prompt| self.replaced(prompt, text)) {
                let scores = guard::catch("", "score", || self.instance()?.score(std::slice::from_ref(&sample)));
                let broken = match scores {
                    Ok(scores) if scores.len() == 1 && scores[0].is_finite() => {
                        scored += 1;
                        continue;
                    }
                    Ok(scores) => format!("the scores are {scores:?}"),
                    // Such text may be refused with an error.
                    Err(e) if ![Code::PANIC, Code::POISONED, Code::INTERNAL].contains(&e.code) => {
                        refused += 1;
                        continue;
                    }
                    Err(e) => e.to_string(),
                };
                return Err(Fault::of(Some(&sample), format!("{what}: {broken}")));
            }
        }
        Ok(format!("{scored} scored, {refused} refused"))
    }

    /// The first sample with `text` as its prompt, or as its completion.
    fn replaced(&self, prompt: bool, text: &str) -> Sample {
        let sample = self.samples().into_iter().next().unwrap_or_default();
        match prompt {
            true => Sample { prompt: text.to_owned(), ..sample },
            false => Sample { completion: text.to_owned(), ..sample },
        }
    }
}

fn reward_of(laws: &Laws) -> Result<Box<dyn Reward>> {
    laws.instance()
}

type Outcome = std::result::Result<String, Fault>;
type Law = fn(&Laws) -> Outcome;

/// How a law was broken, and by which sample.
struct Fault {
    text: String,
    agreement: Option<Agreement>,
    sample: Option<Box<Sample>>,
}

impl Fault {
    fn of(sample: Option<&Sample>, text: String) -> Self {
        Self { text, agreement: None, sample: sample.cloned().map(Box::new) }
    }

    fn within(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::of(None, e.to_string())
    }
}

/// Checks that scores are equal bit for bit, and reports the first sample whose score differs.
fn same(samples: &[Sample], expected: &[f64], found: &[f64], what: &str) -> std::result::Result<(), Fault> {
    match expected.iter().zip(found).position(|(a, b)| a.to_bits() != b.to_bits()) {
        None => Ok(()),
        Some(at) => Err(Fault {
            text: format!("{what}: the score is {}, it was {}", found[at], expected[at]),
            agreement: Some(Agreement::new((expected[at] - found[at]).abs(), 0.0)),
            sample: samples.get(at).cloned().map(Box::new),
        }),
    }
}

/// A sample in one line.
fn told(sample: &Sample) -> String {
    let short = |text: &str| {
        let shown: String = text.chars().take(60).collect();
        if shown.len() < text.len() { format!("{shown:?}...") } else { format!("{shown:?}") }
    };
    let columns: String = sample
        .columns
        .iter()
        .map(|(name, value)| match value {
            Column::Text(text) | Column::Json(text) => format!("; {name} {}", short(text)),
            Column::Number(number) => format!("; {name} {number}"),
        })
        .collect();
    let ended = if sample.ended { "ended" } else { "cut off" };
    format!("prompt {}; completion {} ({ended}){columns}", short(&sample.prompt), short(&sample.completion))
}

#[cfg(test)]
mod tests;
