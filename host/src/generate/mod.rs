//! Generation: each distinct prompt runs once, packed with others; then all samples advance together, one token at a time, over
//! cached keys and values.
//!
//! Works on token ids only, not on text or stop strings. A draw depends only on (seed, sample, position), so samples do not
//! depend on what else is generated at the same time.
//!
//! [`saved_model`](crate::inference::saved_model) opens a model outside of a run, for generation and for evaluation on text;
//! [`evaluate_rows`](crate::inference::evaluate_rows) evaluates it on rows.

mod draw;
mod generation;
mod options;
pub mod session;
pub mod text;

use crate::error::{Error, Result};
use crate::model::Model;

pub use generation::{Extent, Generation, SLOTS};
pub use options::{Completion, Drawn, Finish, GenerateOptions};

/// Continues every prompt; calls `on_token` with each token when it is drawn.
///
/// # Errors
/// A request error for an empty prompt, one that leaves no room in the model's context length, a token outside the vocabulary, or
/// options out of range; errors of the backend.
pub fn generate(
    model: &Model,
    prompts: &[Vec<i32>],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(Drawn),
) -> Result<Vec<Completion>> {
    let mut generation = Generation::new(model, prompts, options, Extent::all(prompts.len()), on_token)?;
    let mut done = vec![None; prompts.len()];
    while !generation.is_done() {
        for (sample, completion) in generation.advance()? {
            done[sample] = Some(completion);
        }
    }
    let done: Option<Vec<Completion>> = done.into_iter().collect();
    done.ok_or_else(|| Error::run("generate: a sample was never finished"))
}

/// Allocates all that [`generate`] uses at a time: runs the first prompts and one token for every sample over a cache of full
/// size, and discards the tokens drawn.
///
/// # Errors
/// As [`generate`].
pub fn reach_peak_memory(model: &Model, prompts: &[Vec<i32>], max_tokens: usize) -> Result<()> {
    let options = GenerateOptions { max_tokens, ..GenerateOptions::default() };
    let mut ignore = |_| {};
    Generation::new(model, prompts, &options, Extent::all(prompts.len()), &mut ignore)?.advance()?;
    Ok(())
}
