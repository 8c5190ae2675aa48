//! `[sample]`: text generated during training.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// text generated during training
    pub struct Written at "sample": Form::Table, example { prompts = ["Once"] }, may_change {
        /// steps between samples; 0: only after the run
        every: u64 = 0, Form::ANY_INT, example 100;
        /// prompts to continue
        prompts: Vec<String>, Form::Texts, example ["Once upon"];
        /// longest continuation in tokens
        max_tokens: usize = 64, Form::Int(1, 1 << 24), example 64;
        /// softmax temperature; 0 picks the most probable token
        temperature: f64 = 1.0, Form::Float(Included(0.0), Included(100.0)), example 0.8;
        /// sample from the smallest set of tokens with this probability; 1 means all
        top_p: f64 = 1.0, Form::Float(Excluded(0.0), Included(1.0)), example 0.95;
        /// sample from the k most probable tokens; 0 means all
        top_k: usize = 0, Form::Int(0, 1 << 24), example 50;
        /// seed of sampling
        seed: u64, Form::Int(0, i64::MAX), default "that of the experiment", example 7;
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
    /// Softmax temperature; 0 picks the most probable token.
    pub temperature: f64,
    /// Draws from the smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// Draws from the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Seed of sampling.
    pub seed: u64,
}

/// Resolves `[sample]`; `seed` is that of the experiment.
pub fn resolve(written: Written, seed: u64, notes: &mut Notes<'_>) -> Option<Sample> {
    let Some(prompts) = written.prompts.clone() else {
        notes.missing("sample.prompts", "without it nothing is sampled; for example prompts = [\"Once upon\"]");
        return None;
    };
    let temperature = written.temperature();
    let (top_p, top_k) = (written.top_p(), written.top_k());
    if temperature == 0.0 {
        let why = "temperature = 0 always picks the most probable token";
        notes.unused("sample.top_p", &(top_p < 1.0).then_some(top_p), why);
        notes.unused("sample.top_k", &(top_k > 0).then_some(top_k), why);
    }
    Some(Sample {
        every: written.every(),
        prompts,
        max_tokens: written.max_tokens(),
        temperature,
        top_p,
        top_k,
        seed: written.seed.unwrap_or(seed),
    })
}
