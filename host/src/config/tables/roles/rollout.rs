//! `[rollout]`: how the policy samples answers.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// how the policy's answers are sampled, for objectives that learn from prompts
    pub struct Written at "rollout": Form::Table, example { prompts = 64, max_new_tokens = 32 } {
        /// prompts of one rollout; a multiple of train.batch.prompts
        prompts: usize, Form::ROWS, example 64;
        /// most prompts drawn for one rollout, if an objective drops answers and requests more prompts
        max_prompts: usize, Form::ROWS, default "4 times rollout.prompts", example 256;
        /// answers to each prompt
        samples: usize = 1, Form::Int(1, 65536), example 4;
        /// passes over a rollout, each in its own order, with train.batch.prompts prompts per step
        epochs: usize = 1, Form::Int(1, 65536), example 4;
        /// longest answer in tokens, including its end-of-text token
        max_new_tokens: usize, Form::Int(1, 1 << 24), example 32;
        /// divides the logits, both for sampling and for all log-probabilities
        temperature: f64 = 1.0, Form::Float(Excluded(0.0), Included(100.0)), example 0.8;
        /// sample from the smallest set of tokens with this probability; log-probabilities are still over all tokens
        top_p: f64 = 1.0, Form::Float(Excluded(0.0), Included(1.0)), example 0.95;
        /// sample from the k most probable tokens; 0 means all
        top_k: usize = 0, Form::Int(0, 1 << 24), example 50;
        /// rewards are clipped to this distance from 0
        clip: f64, Form::POSITIVE, default "none", example 5.0;
    }
}

/// `[rollout]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rollout {
    /// Number of prompts in a rollout.
    pub prompts: usize,
    /// The most prompts drawn for one rollout; absent: [`Rollout::most_prompts`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prompts: Option<usize>,
    /// Number of answers to each.
    pub samples: usize,
    /// Passes over a rollout.
    pub epochs: usize,
    /// Longest answer in tokens.
    pub max_new_tokens: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Draws from the smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// Draws from the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Rewards are clipped to this distance from 0; absent: not clipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
}

impl Rollout {
    /// The most prompts that are drawn for one rollout if an objective requests more.
    pub fn most_prompts(&self) -> usize {
        self.max_prompts.unwrap_or(self.prompts.saturating_mul(4))
    }
}

/// Resolves `[rollout]`.
pub fn resolve(written: Written, notes: &mut Notes<'_>) -> Option<Rollout> {
    if written.prompts.is_none() {
        notes.missing("rollout.prompts", "the number of prompts in a rollout is needed; for example prompts = 64");
    }
    if written.max_new_tokens.is_none() {
        notes.missing(
            "rollout.max_new_tokens",
            "the longest answer in tokens is needed; for example max_new_tokens = 32",
        );
    }
    if let (Some(prompts), Some(most)) = (written.prompts, written.max_prompts.filter(|_| !notes.reported("rollout")))
        && most < prompts
    {
        let why = format!("{most} is less than rollout.prompts = {prompts}, which every rollout draws");
        notes.refuse("rollout.max_prompts", why);
    }
    Some(Rollout {
        prompts: written.prompts?,
        max_prompts: written.max_prompts,
        samples: written.samples(),
        epochs: written.epochs(),
        max_new_tokens: written.max_new_tokens?,
        temperature: written.temperature(),
        top_p: written.top_p(),
        top_k: written.top_k(),
        clip: written.clip,
    })
}
