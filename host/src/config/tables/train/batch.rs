//! `[train.batch]`: how much data one optimizer step reads, and how it is split into micro-batches.

use serde::Serialize;

use super::length::Length;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

/// Tokens of a step of an experiment that trains none: they size its evaluations.
const UNTRAINED: usize = 16384;

table! {
    /// how much data one optimizer step reads: tokens, sequences, pairs or prompts
    pub struct Written at "train.batch": Form::Table, example { tokens = 8192 } {
        /// tokens per step, in whole sequences or pairs; not for prompts alone
        tokens: usize, Form::POSITIONS, example 8192;
        /// sequences per step; not for pairs or prompts alone
        sequences: usize, Form::ROWS, example 12;
        /// preference pairs per step
        pairs: usize, Form::ROWS, example 32;
        /// prompts per step, for objectives whose policy answers them
        prompts: usize, Form::ROWS, example 32;
    }
}

/// How much data one optimizer step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Batch {
    /// This many tokens.
    Tokens(usize),
    /// This many sequences.
    Sequences(usize),
    /// This many preference pairs.
    Pairs(usize),
    /// This many prompts, which the policy answers.
    Prompts(usize),
}

/// Resolves `[train.batch]`; `longest` is the longest training sequence, if it is known.
pub fn resolve(written: Option<Written>, longest: Option<usize>, length: Length, notes: &mut Notes<'_>) -> Batch {
    const EXAMPLE: &str = "for example batch = { tokens = 8192 } or batch = { sequences = 12 }";
    let Some(written) = written else {
        if length == Length::Steps(0) {
            return Batch::Tokens(UNTRAINED.max(longest.unwrap_or(1)));
        }
        notes.missing("train.batch", &format!("it sets how much data one step reads; {EXAMPLE}"));
        return Batch::Tokens(0);
    };
    let given = [
        ("tokens", written.tokens.map(Batch::Tokens)),
        ("sequences", written.sequences.map(Batch::Sequences)),
        ("pairs", written.pairs.map(Batch::Pairs)),
        ("prompts", written.prompts.map(Batch::Prompts)),
    ];
    let mut given = given.into_iter().filter_map(|(name, batch)| Some((name, batch?)));
    let Some((first, batch)) = given.next() else {
        notes.missing("train.batch", EXAMPLE);
        return Batch::Tokens(0);
    };
    for (name, _) in given {
        let why = format!("contradicts train.batch.{first}: give one of them");
        notes.refuse(&format!("train.batch.{name}"), why);
    }
    if let Batch::Tokens(tokens) = batch
        && let Some(longest) = longest.filter(|longest| *longest > tokens)
    {
        let message = format!(
            "{tokens} tokens are fewer than the {longest} of the longest sequence; raise it, or shorten the sequences"
        );
        notes.refuse("train.batch.tokens", message);
    }
    batch
}

/// Resolves `train.micro_batch_tokens`.
pub fn micro_batch_tokens(written: Option<usize>, longest: Option<usize>, notes: &mut Notes<'_>) -> Option<usize> {
    let longest = longest.unwrap_or(1);
    if let Some(tokens) = written.filter(|tokens| *tokens < longest) {
        let message = format!(
            "{tokens} tokens are fewer than the {longest} of the longest sequence; raise it to {longest} or more"
        );
        notes.refuse("train.micro_batch_tokens", message);
    }
    written
}
