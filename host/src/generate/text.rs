//! Continuations of prompts as text.

use std::fmt;

use serde::Serialize;

use super::{GenerateOptions, generate};
use crate::{
    data::Tokenizer,
    error::{Error, Result},
    model::Model,
};

/// A prompt and its continuation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleText {
    /// The prompt.
    pub prompt: String,
    /// The continuation.
    pub text: String,
    /// Its number of tokens.
    pub tokens: usize,
    /// Why it ended.
    pub finish: &'static str,
}

impl fmt::Display for SampleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  > {}", (self.prompt.clone() + "|" + &self.text).replace('\n', "\n    "))
    }
}

/// Continues each prompt.
///
/// # Errors
/// A prompt that leaves no room in the context; errors of the backend.
pub fn continue_texts(
    model: &Model,
    tokenizer: &Tokenizer,
    prompts: &[String],
    options: &GenerateOptions,
) -> Result<Vec<SampleText>> {
    let ids = |prompt: &String| -> Result<Vec<i32>> {
        Ok(tokenizer.encode_input(prompt)?.into_iter().map(|id| id as i32).collect())
    };
    let encoded: Vec<Vec<i32>> = prompts.iter().map(ids).collect::<Result<_>>()?;
    let completions = generate(model, &encoded, options, &mut |_| {})?;
    prompts
        .iter()
        .zip(completions)
        .map(|(prompt, completion)| {
            let ids: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
            let text = tokenizer.decode(&ids, true).map_err(Error::from)?;
            Ok(SampleText { prompt: prompt.clone(), text, tokens: ids.len(), finish: completion.finish.as_str() })
        })
        .collect()
}
