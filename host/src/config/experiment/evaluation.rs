//! What is evaluated, saved and sampled, and when.

use std::fmt;

use serde::Serialize;

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Eval {
    /// Steps between evaluations; 0: only before and after.
    pub every: u64,
    /// Number of held-out tokens used; 0: all.
    pub tokens: u64,
    /// Held-out prompts that are answered greedily and compared with their completions; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<u64>,
    /// Temperature of the answers that rewards score and of those that pass@k counts; absent if nothing is generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What pass@k is measured on; absent: it is not measured.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassAt>,
    /// When to stop early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
}

/// Sampled answers to held-out prompts, for pass@k.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PassAt {
    /// How many answers are sampled to each prompt.
    pub samples: usize,
    /// Each `k` of pass@k, from 1 to `samples`, in ascending order; at least one.
    pub pass_at: Vec<usize>,
}

/// When to stop early.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EarlyStop {
    /// The metric to watch.
    pub metric: MetricRule,
    /// Evaluations without improvement before the run stops.
    pub patience: u64,
    /// Smallest improvement that counts.
    pub min_delta: f64,
}

/// `[checkpoint]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Steps between checkpoints; 0: only at the end.
    pub every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
    /// The metric by which the best checkpoint is kept; absent: no best one is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<MetricRule>,
}

/// A metric, and whether larger or smaller is better; written `min:eval/loss`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct MetricRule {
    /// Name of the metric: `eval/loss`.
    pub metric: String,
    /// Whether larger is better.
    pub larger_is_better: bool,
}

impl MetricRule {
    /// Parses `min:NAME` or `max:NAME`; a loss or perplexity needs no prefix.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (prefix, metric) = text.split_once(':').unwrap_or(("", text));
        let larger_is_better = match prefix {
            "max" => true,
            "min" => false,
            "" if metric.ends_with("loss") || metric.ends_with("perplexity") => false,
            "" => {
                return Err(format!("write \"min:{metric}\" or \"max:{metric}\": which way is better?"));
            }
            other => return Err(format!("\"{other}:\" is neither min: nor max:")),
        };
        if metric.is_empty() {
            return Err(format!("\"{text}\" names no metric; for example \"min:eval/loss\""));
        }
        Ok(Self { metric: metric.to_owned(), larger_is_better })
    }

    /// Whether `new` is better than `old` by more than `min_delta`; NaN never is.
    pub fn is_better(&self, new: f64, old: f64, min_delta: f64) -> bool {
        if self.larger_is_better { new - old > min_delta } else { old - new > min_delta }
    }
}

impl fmt::Display for MetricRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", if self.larger_is_better { "max" } else { "min" }, self.metric)
    }
}

impl From<MetricRule> for String {
    fn from(rule: MetricRule) -> String {
        rule.to_string()
    }
}

/// `[sample]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Steps between samples; 0: only after the run.
    pub every: u64,
    /// Prompts to continue; at least one.
    pub prompts: Vec<String>,
    /// Longest continuation in tokens.
    pub max_tokens: usize,
    /// Softmax temperature; 0 takes the most probable token.
    pub temperature: f64,
    /// Draws from the smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// Draws from the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Seed of sampling.
    pub seed: u64,
}
