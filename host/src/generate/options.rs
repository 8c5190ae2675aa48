//! What a generation is asked for, and what it returns.

/// Sampling options.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Maximum tokens of a continuation, including the end token.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// Draw from the smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// Draw from the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: 64, temperature: 1.0, top_p: 1.0, top_k: 0, seed: 0 }
    }
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Its last token ends the sequence.
    EndOfSequence,
    /// It has the maximum number of tokens.
    MaxTokens,
    /// Prompt and continuation fill the model's context length.
    Context,
}

impl Finish {
    /// Returns the reason in words, for the terminal and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::EndOfSequence => "end of sequence",
            Finish::MaxTokens => "max tokens",
            Finish::Context => "context full",
        }
    }
}

/// One continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its tokens, including an end token.
    pub tokens: Vec<i32>,
    /// Log-probability of each under the whole softmax at the temperature (at 1 if the temperature is 0).
    pub logps: Vec<f64>,
    /// Log-probability of each under the distribution that it was drawn from: the softmax at the temperature, truncated by
    /// `top_k` and `top_p` and renormalised over the remaining tokens. 0 if the temperature is 0; equal to `logps` without
    /// truncation.
    pub kept_logps: Vec<f64>,
    /// Entropy of that distribution in nats, at each token; 0 if the temperature is 0.
    pub kept_entropies: Vec<f64>,
    /// Why it ended.
    pub finish: Finish,
}

/// A token, reported when it is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// Index of the prompt.
    pub sample: usize,
    /// The token.
    pub token: i32,
    /// Its log-probability.
    pub logp: f64,
}
