//! Answers of the policy, compared with the answers of their rows.

use serde_json::{Map, Value, json};

use super::prompts::{EvalPrompt, text};
use crate::{
    data::Tokenizer,
    error::Result,
    generate::{GenerateOptions, generate, text::SampleText},
    model::Model,
    train::histogram::Distribution,
};

/// An answer and what it was compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedAnswer {
    /// Prompt, answer, its length and end.
    pub text: SampleText,
    /// The row's own answer, the first of several.
    pub expected: String,
    /// Its other correct answers.
    pub more_expected: Vec<String>,
    /// Whether the answer equals one of them.
    pub is_match: bool,
}

impl ComparedAnswer {
    /// Returns the answer as a JSON object; `kind` names the metric that counts it.
    pub fn line(&self, kind: &str) -> Map<String, Value> {
        let ComparedAnswer { text: SampleText { prompt, text, tokens, finish }, expected, more_expected, is_match } =
            self;
        let line = [
            ("kind", json!(kind)),
            ("prompt", json!(prompt)),
            ("answer", json!(text)),
            ("expected", json!(expected)),
            ("match", json!(is_match)),
            ("tokens", json!(tokens)),
            ("finish", json!(finish)),
        ];
        let others = (!more_expected.is_empty()).then(|| ("also_right", json!(more_expected)));
        line.into_iter().chain(others).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Returns the distribution of the answers' lengths in tokens.
pub fn lengths(name: &str, answers: &[ComparedAnswer]) -> Vec<Distribution> {
    let lengths: Vec<f64> = answers.iter().map(|answer| answer.text.tokens as f64).collect();
    Distribution::of(name, &lengths).into_iter().collect()
}

/// Returns the prompts whose rows have an answer.
pub fn with_answers(prompts: &[EvalPrompt]) -> impl Iterator<Item = &EvalPrompt> {
    prompts.iter().filter(|prompt| prompt.has_answer())
}

/// Generates an answer to each prompt and compares it with the row's answers, up to the first token that ends an answer;
/// special tokens and surrounding white space are ignored.
///
/// # Errors
/// Errors of the backend.
pub fn compare(
    model: &Model,
    tokenizer: &Tokenizer,
    prompts: &[&EvalPrompt],
    options: &GenerateOptions,
) -> Result<Vec<ComparedAnswer>> {
    let ids = |prompt: &&EvalPrompt| prompt.prompt().ids.iter().map(|id| *id as i32).collect();
    let inputs: Vec<Vec<i32>> = prompts.iter().map(ids).collect();
    let mut answers = Vec::with_capacity(prompts.len());
    for (completion, prompt) in generate(model, &inputs, options, &mut |_| {})?.iter().zip(prompts) {
        let ids: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
        let answer = text(tokenizer, &ids)?;
        answers.push(ComparedAnswer {
            is_match: prompt.is_correct(&answer),
            expected: prompt.answer.clone().unwrap_or_default(),
            more_expected: prompt.more_answers.clone(),
            text: SampleText {
                prompt: prompt.text.clone(),
                text: answer,
                tokens: completion.tokens.len(),
                finish: completion.finish.as_str(),
            },
        });
    }
    Ok(answers)
}
