//! A plugin's description of itself. It crosses as JSON: an older host ignores fields of a newer minor version, and fields that an
//! older plugin lacks get their defaults.

use serde::{Deserialize, Serialize};

/// The three kinds of plugin, as written in a library's header.
pub mod kind {
    /// An objective.
    pub const OBJECTIVE: &str = "objective";
    /// A backend.
    pub const BACKEND: &str = "backend";
    /// A reward.
    pub const REWARD: &str = "reward";
}

/// One option a plugin takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptionSpec {
    /// Its key in the experiment file.
    pub name: String,
    /// `bool`, `int`, `float`, `string`, `float list` or `string list`.
    pub kind: String,
    /// Its value if the file has none; null: the option is required.
    #[serde(default)]
    pub default: serde_json::Value,
    /// Smallest legal number.
    #[serde(default)]
    pub min: Option<f64>,
    /// Largest legal number.
    #[serde(default)]
    pub max: Option<f64>,
    /// The legal strings; empty: any.
    #[serde(default)]
    pub choices: Vec<String>,
    /// What it does, in one sentence.
    pub meaning: String,
}

/// Declares a `&str`-like newtype with named values. It accepts values of newer minor versions.
macro_rules! names {
    ($(#[$meta:meta])* $Name:ident { $($(#[$vmeta:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $Name(pub std::borrow::Cow<'static, str>);

        impl $Name {
            $($(#[$vmeta])* pub const $value: $Name = $Name(std::borrow::Cow::Borrowed($text));)*

            /// Every value of this minor.
            pub const ALL: &'static [&'static str] = &[$($text,)*];

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

names! {
    /// What kind of rows an objective learns from.
    DataKind {
        /// Running text.
        TEXT = "text",
        /// A prompt and its completion (or a conversation).
        PROMPT_COMPLETION = "prompt-completion",
        /// A prompt, a chosen and a rejected answer.
        PREFERENCE = "preference",
        /// A prompt, an answer and whether it is desirable.
        UNPAIRED = "unpaired",
        /// Prompts alone; the policy answers.
        PROMPT = "prompt",
    }
}

names! {
    /// A number per token (or sequence) that the host computes for an objective. All but `top1` have an exact backward.
    Statistic {
        /// Log-probability of the target, per token.
        LOGP = "logp",
        /// Log-sum-exp of the logits, per token.
        LSE = "lse",
        /// Entropy in nats, per token.
        ENTROPY = "entropy",
        /// Mean of the logits over the vocabulary, per token.
        MEAN_LOGIT = "mean_logit",
        /// 1 where the target has the largest logit, per token. No gradient.
        TOP1 = "top1",
        /// Divergence from another role's whole distribution, per token.
        KL = "kl",
        /// Log-probabilities of given ids, per token and candidate.
        CANDIDATES = "candidates",
        /// The critic's value of the state before a token, per token.
        VALUE = "value",
        /// The scalar head at a sequence's last real token, per sequence.
        SCORE = "score",
        /// The last hidden state of a sequence.
        POOLED = "pooled",
        /// The critic's value after the last token, per sequence. No gradient.
        VALUE_END = "value_end",
    }
}

names! {
    /// What a term's sum is divided by, counted over the whole optimizer window: all micro-batches and ranks.
    Normaliser {
        /// Tokens whose mask is 1.
        SUPERVISED_TOKENS = "supervised tokens",
        /// Sequences.
        SEQUENCES = "sequences",
        /// Pairs.
        PAIRS = "pairs",
        /// Groups.
        GROUPS = "groups",
        /// The number that `weigh` returns under the term's name.
        CUSTOM = "custom",
    }
}

names! {
    /// How a metric's parts are combined into one number.
    Reduction {
        /// The sum of the sums, divided by the sum of the weights.
        MEAN = "mean",
        /// The sum of the sums.
        SUM = "sum",
        /// The smallest value.
        MIN = "min",
        /// The largest value.
        MAX = "max",
    }
}

/// A term of the loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TermSpec {
    /// Its name in metrics and results.
    pub name: String,
    /// What its sum is divided by.
    pub normaliser: Normaliser,
    /// What it is, in one sentence.
    pub meaning: String,
}

impl TermSpec {
    /// A term's declaration.
    pub fn new(name: &str, normaliser: Normaliser, meaning: &str) -> Self {
        Self { name: name.into(), normaliser, meaning: meaning.into() }
    }
}

impl MetricSpec {
    /// A metric's declaration.
    pub fn new(name: &str, reduction: Reduction, meaning: &str) -> Self {
        Self { name: name.into(), reduction, meaning: meaning.into(), healthy: None }
    }
}

/// A diagnostic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// Its name in metrics.jsonl.
    pub name: String,
    /// How parts combine.
    pub reduction: Reduction,
    /// What it is, in one sentence.
    pub meaning: String,
    /// The range of values in a healthy run.
    #[serde(default)]
    pub healthy: Option<(f64, f64)>,
}

/// A value that the loss holds constant in its gradient although it depends on a statistic, such as KTO's reference point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StopGradient {
    /// Its name in the loss: `x.detach_as(name)` on a tape, `stop_gradient(name, values)` by hand. `loss` detaches it under all
    /// options, also under those that do not use it.
    pub name: String,
    /// What it is, in one sentence.
    pub meaning: String,
}

impl StopGradient {
    /// A declaration.
    pub fn new(name: &str, meaning: &str) -> Self {
        Self { name: name.into(), meaning: meaning.into() }
    }
}

/// What must hold before the first update; the host checks it and warns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    /// `loss`, a term's name or a metric's name.
    pub quantity: String,
    /// `ln_vocab` (the logarithm of the vocabulary's size) or a number as text.
    pub value: String,
    /// Allowed distance as a share of the value: 0.1 allows a tenth more or less. A value of 0 allows no distance.
    pub tolerance: f64,
    /// When it holds, in words.
    pub when: String,
}

/// An objective's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectiveManifest {
    /// Its name in experiment files.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// The formula of the loss, as text.
    pub formula: String,
    /// The paper or other source of the formula.
    pub paper: String,
    /// What rows it learns from.
    pub data: DataKind,
    /// Terms and their normalisers.
    pub terms: Vec<TermSpec>,
    /// Diagnostics.
    pub metrics: Vec<MetricSpec>,
    /// Options.
    pub options: Vec<OptionSpec>,
    /// What must hold at step 0.
    pub expectations: Vec<Expectation>,
    /// The loss couples the whole batch under all options: what one sequence contributes depends on sequences beyond its own pair
    /// or group, through a mean over the batch for example. The sums of a window's two halves then do not add up to the sums of
    /// the window. The host runs the window forward, calls `loss` once, and replays the micro-batches with those cotangents, which
    /// costs a second forward pass. If it depends on options, [`Requirements::coupled`] says so.
    pub coupled: bool,
    /// Values that the loss detaches under these names. Optional; if declared, a law checks that the loss detaches them, and so
    /// finds a `detach_as` that was removed by mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_gradients: Vec<StopGradient>,
}

impl Default for DataKind {
    fn default() -> Self {
        DataKind::TEXT
    }
}

/// What one instance needs under its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// The statistics it reads: the policy's by plain names (`logp`), another role's after its name and a dot (`reference.logp`).
    pub statistics: Vec<String>,
    /// The loss is linear in its statistics, so that cotangents depend on data alone: the host requests them with statistics of
    /// zero before the head runs, and the head computes loss and gradient in one pass.
    pub linear: bool,
    /// Temperature: the logits are divided by it before any statistic is computed.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Under these options the loss couples the whole batch, which [`ObjectiveManifest::coupled`] declares for every instance:
    /// either is enough.
    #[serde(default)]
    pub coupled: bool,
}

impl Requirements {
    /// Reads these statistics: `Requirements::reading(["logp", "reference.logp"])`. Everything else is the default.
    pub fn reading<'a>(statistics: impl IntoIterator<Item = &'a str>) -> Self {
        Self { statistics: statistics.into_iter().map(str::to_owned).collect(), ..Self::default() }
    }
}

fn one() -> f64 {
    1.0
}

impl Default for Requirements {
    fn default() -> Self {
        Self { statistics: vec!["logp".into()], linear: false, temperature: 1.0, coupled: false }
    }
}

/// A device a backend knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// `cpu`, `cuda`, `metal`.
    pub name: String,
    /// Whether this library was compiled with it.
    pub compiled: bool,
    /// Whether the conformance suite has been run on it by the backend's developers.
    pub tested: bool,
    /// A note for users.
    #[serde(default)]
    pub note: String,
    /// The instruction set that computes on this machine, such as `avx2`, if another one gives other last bits; empty if there is
    /// only one. It is recorded in receipts and decides which cached numbers are reused. If the backend has an option `isa` and it
    /// is not `auto`, the option's value is used instead.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instruction_set: String,
    /// Whether every number of threads gives the same bits. Without this promise a run's receipt records the number, and a run
    /// that is resumed with another one reports it.
    #[serde(default)]
    pub same_with_any_threads: bool,
}

/// A backend's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendManifest {
    /// Its name in experiment files.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// Devices it knows, compiled in or not.
    pub devices: Vec<DeviceSpec>,
    /// Compute dtypes it offers.
    pub dtypes: Vec<String>,
    /// Options.
    pub options: Vec<OptionSpec>,
}

/// A reward's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardManifest {
    /// Its name in experiment files.
    pub id: String,
    /// Its own version.
    pub version: String,
    /// One sentence.
    pub summary: String,
    /// Columns that it reads from every row, each with a text (not empty) or a number. The host refuses data without them.
    pub columns: Vec<String>,
    /// Options.
    pub options: Vec<OptionSpec>,
    /// Columns with more detail: the option that names one, and the type of its values. An entry replaces the one of the same name
    /// in `columns`.
    pub reads: Vec<RewardColumn>,
}

impl RewardManifest {
    /// All declared columns, from `columns` and `reads`.
    pub fn declared_columns(&self) -> Vec<RewardColumn> {
        let plain = |name: &String| RewardColumn { name: name.clone(), ..RewardColumn::default() };
        let is_plain = |name: &&String| self.reads.iter().all(|column| column.name != **name);
        self.columns.iter().filter(is_plain).map(plain).chain(self.reads.iter().cloned()).collect()
    }
}

/// A column that a reward reads from every row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardColumn {
    /// Its name; with an option, the option's default value.
    pub name: String,
    /// The option whose value is the column's name; empty if no option names it.
    pub option: String,
    /// The type of its values.
    pub value: ColumnValue,
    /// Whether an empty text is allowed.
    pub may_be_empty: bool,
}

names! {
    /// The type of a column's values. A host treats a name that it cannot interpret as [`ColumnValue::ANY`].
    ColumnValue {
        /// A text or a number.
        ANY = "any",
        /// A text.
        TEXT = "text",
        /// A number, or true or false.
        NUMBER = "number",
    }
}

impl Default for ColumnValue {
    fn default() -> Self {
        Self::ANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a new field without a default, and unknown fields that are refused: plugins of earlier builds have other fields.
    #[test]
    fn descriptions_of_an_older_plugin_are_understood() {
        let older = r#"{"statistics": ["logp"], "linear": false}"#;
        assert_eq!(serde_json::from_str::<Requirements>(older).unwrap(), Requirements::default());
        assert!(!Requirements::default().coupled);
        let older = r#"{"id": "focal", "roles": [{"name": "policy", "trains": true, "statistics": ["logp"]}]}"#;
        let expected = ObjectiveManifest { id: "focal".into(), ..Default::default() };
        assert_eq!(serde_json::from_str::<ObjectiveManifest>(older).unwrap(), expected);
    }
}
