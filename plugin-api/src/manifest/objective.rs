//! An objective's description of itself, and what one instance needs.

use super::{
    names::{AttentionMask, DataKind, Normaliser, Reduction},
    option::OptionSpec,
};
use serde::{Deserialize, Serialize};

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

impl MetricSpec {
    /// A metric's declaration.
    pub fn new(name: &str, reduction: Reduction, meaning: &str) -> Self {
        Self { name: name.into(), reduction, meaning: meaning.into(), healthy: None }
    }
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
    /// The condition under which it holds, in words.
    pub when: String,
}

impl Expectation {
    /// An expectation's declaration.
    pub fn new(quantity: &str, value: &str, tolerance: f64, when: &str) -> Self {
        Self { quantity: quantity.into(), value: value.into(), tolerance, when: when.into() }
    }
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
    /// costs a second forward pass. If it depends on options, [`Requirements::coupled`] is set.
    pub coupled: bool,
    /// Values that the loss detaches under these names. Optional; if declared, a law checks that the loss detaches them, and so
    /// finds a `detach_as` that was removed by mistake.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_gradients: Vec<StopGradient>,
}

/// What one instance needs under its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requirements {
    /// The statistics it reads: the policy's by plain names (`logp`), another role's after its name and a dot (`reference.logp`).
    pub statistics: Vec<String>,
    /// The loss is linear in its statistics, so that cotangents depend only on data: the host requests them with statistics of
    /// zero before the head runs, and the head computes loss and gradient in one pass.
    pub linear: bool,
    /// Temperature: the logits are divided by it before any statistic but `kl` is computed. With rollouts it must be 1: there all
    /// statistics but `kl` are read at the temperature of the sampling, `rollout.temperature`.
    #[serde(default = "one")]
    pub temperature: f64,
    /// Under these options the loss couples the whole batch, which [`ObjectiveManifest::coupled`] declares for every instance:
    /// either is enough.
    #[serde(default)]
    pub coupled: bool,
    /// What divides a term under these options, where it is not what the manifest says.
    #[serde(default)]
    pub normalisers: Vec<TermNormaliser>,
    /// Rollouts: the smallest number of answers to a prompt. The host refuses experiments with fewer.
    #[serde(default = "one_answer")]
    pub samples: u64,
    /// Rollouts: `loss` needs all answers to a prompt in one micro-batch. Otherwise they may be cut apart. Pairs never are.
    #[serde(default = "yes")]
    pub whole_groups: bool,
    /// Rollouts: it reads rewards, so that the host refuses an experiment without one. A teacher may take their place.
    #[serde(default = "yes")]
    pub rewards: bool,
    /// Rollouts: the arrays of single rewards that it reads, without `reward.`: `NAME`, `NAME.PART` or `NAME.token`. The host
    /// refuses an experiment in which any of them is missing.
    #[serde(default)]
    pub reward_names: Vec<String>,
    /// Without rollouts: `prepare` reads the statistics of the whole window, before an array such as a baseline over the batch is
    /// computed. The host then runs the window forward an additional time, before `prepare`; a coupled loss uses the same forward pass.
    /// What `prepare` returns is constant in the gradient. With rollouts `prepare` always reads the statistics.
    #[serde(default)]
    pub window_statistics: bool,
    /// Which divergence the statistics `ROLE.kl` are; required if one is read.
    #[serde(default)]
    pub divergence: Option<Divergence>,
    /// Which ids the statistics `candidates` and `tail` are about; required if one is read.
    #[serde(default)]
    pub candidates: Option<Candidates>,
    /// Which tokens of its sequence a token attends to, in training, evaluation and generation. The prompt of a sequence is what
    /// precedes its first supervised token. With [`AttentionMask::PREFIX`] a prompt is read at once and its continuation decoded
    /// causally; with [`AttentionMask::BIDIRECTIONAL`] the policy cannot generate, and `compose` must not let a sequence hold the
    /// tokens that it predicts, except as its last one, which is not read. Reference and critic read with
    /// the policy's mask; a teacher and a context of its own read with the mask that they were trained with. The saved model records
    /// its mask.
    #[serde(default)]
    pub attention: AttentionMask,
    /// Columns of the data that it reads in every row. The host refuses data without them, or with other values, and names the
    /// row's file and line, so that `loss` need not find them in the middle of a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ObjectiveColumn>,
    /// Token ids that `compose` adds and that have no meaning in a text, such as sentinels. The host refuses an id that is outside
    /// the model's vocabulary, and data in which it occurs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved_ids: Vec<GivenNumber>,
    /// The smallest context with which its options have a meaning. The host refuses a model with a smaller one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_context: Option<GivenNumber>,
    /// Rollouts: the longest answer in tokens by which it computes. The host refuses another `rollout.max_new_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<GivenNumber>,
    /// Rollouts: `prepare` may return `request`. If no objective does, the host refuses `rollout.max_prompts`, which then has no
    /// effect.
    #[serde(default = "yes")]
    pub requests: bool,
    /// Features of a later version of the contract without which the objective would compute something else. A host refuses those
    /// that it does not know; version 1.0 has none. Everything else that a host does not know in a description is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
}

/// A number, and the option that sets it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GivenNumber {
    /// The number.
    pub number: u64,
    /// The option's name, for messages; empty if no option sets it.
    pub option: String,
}

impl GivenNumber {
    /// A number that an option sets.
    pub fn new(number: u64, option: &str) -> Self {
        Self { number, option: option.to_owned() }
    }
}

/// A column that an objective reads in every row of its data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectiveColumn {
    /// Its name, without `column.`.
    pub name: String,
    /// It is a list with one number for each segment of the row's answer. Otherwise it is a number. Rows that are truncated so
    /// that no whole segment is left are then dropped.
    pub per_segment: bool,
    /// The smallest allowed value.
    pub least: Option<f64>,
    /// The largest allowed value.
    pub most: Option<f64>,
}

/// What divides a term under an instance's options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TermNormaliser {
    /// The term's name.
    pub term: String,
    /// What is counted over the window.
    pub normaliser: Normaliser,
    /// A constant above 0 that multiplies the count: with [`Normaliser::SEQUENCES`] and the longest possible answer, a term is
    /// divided by a number that does not depend on the answers' lengths.
    #[serde(default = "one")]
    pub times: f64,
}

impl TermNormaliser {
    /// Divides a term by what the normaliser counts.
    pub fn new(term: &str, normaliser: Normaliser) -> Self {
        Self { term: term.to_owned(), normaliser, times: 1.0 }
    }

    /// With another constant that multiplies the count.
    #[must_use]
    pub fn times(self, times: f64) -> Self {
        Self { times, ..self }
    }
}

/// A divergence between the distributions of the policy, p, and of another role, q, at a temperature: the generalised
/// Jensen-Shannon divergence of a weight w in 0..=1 (Agarwal et al. 2024, arXiv 2306.13649, equation 1, with its beta as w):
///
/// ```text
/// w = 0          KL(q || p)            forward
/// w = 1          KL(p || q)            reverse
/// otherwise      w KL(q || m) + (1 - w) KL(p || m),  m = w q + (1 - w) p
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The weight w.
    pub weight: f64,
    /// Divides the logits of both models. The divergence is not multiplied by its square.
    #[serde(default = "one")]
    pub temperature: f64,
}

impl Divergence {
    /// The divergence of this weight, 0 to 1, at this temperature.
    pub fn new(weight: f64, temperature: f64) -> Self {
        Self { weight, temperature }
    }
}

/// The ids of the statistics `candidates` and `tail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// A role, `policy` among them: the ids that it finds most probable at each token, the most probable first.
    /// [`Candidates::COMPOSED`]: the array `candidate_ids` that `compose` returned.
    pub from: String,
    /// Ids per token, K.
    pub count: u64,
}

impl Candidates {
    /// The value of [`Candidates::from`] for ids that `compose` returned.
    pub const COMPOSED: &'static str = "compose";

    /// `count` ids per token from a role, or from [`Candidates::COMPOSED`].
    pub fn new(from: &str, count: u64) -> Self {
        Self { from: from.to_owned(), count }
    }
}

impl Requirements {
    /// What divides a term under these options, and the constant that multiplies it: its entry in [`Requirements::normalisers`],
    /// else what the manifest says, times 1.
    pub fn normaliser<'a>(&'a self, term: &'a TermSpec) -> (&'a Normaliser, f64) {
        let own = self.normalisers.iter().find(|own| own.term == term.name);
        own.map_or((&term.normaliser, 1.0), |own| (&own.normaliser, own.times))
    }

    /// How many ids per token `compose` has to return as `candidate_ids`; `None` if the candidates come from a role, or none are
    /// read.
    pub fn composed_candidates(&self) -> Option<u64> {
        self.candidates.as_ref().filter(|ids| ids.from == Candidates::COMPOSED).map(|ids| ids.count)
    }

    /// Reads these statistics: `Requirements::reading(["logp", "reference.logp"])`. Everything else is the default.
    pub fn reading<'a>(statistics: impl IntoIterator<Item = &'a str>) -> Self {
        Self { statistics: statistics.into_iter().map(str::to_owned).collect(), ..Self::default() }
    }
}

fn one() -> f64 {
    1.0
}

fn one_answer() -> u64 {
    1
}

fn yes() -> bool {
    true
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            statistics: vec!["logp".into()],
            linear: false,
            temperature: 1.0,
            coupled: false,
            normalisers: Vec::new(),
            samples: 1,
            whole_groups: true,
            rewards: true,
            reward_names: Vec::new(),
            features: Vec::new(),
            window_statistics: false,
            divergence: None,
            candidates: None,
            attention: AttentionMask::CAUSAL,
            columns: Vec::new(),
            reserved_ids: Vec::new(),
            least_context: None,
            max_new_tokens: None,
            requests: true,
        }
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
