//! Exact match: greedy answers to held-out prompts, compared with the rows' own answers.

use super::{
    compare::{ComparedAnswer, compare, lengths, with_answers},
    evaluator::{AnswerLines, Evaluator, HeldOutPrompts, Measured},
    prompts::EvalPrompt,
};
use crate::{
    data::Tokenizer,
    error::Result,
    generate::{Finish, GenerateOptions},
    model::Model,
};

/// The metric's name, without the prefix `eval/`.
const EXACT_MATCH: &str = "exact_match";

/// Measures `exact_match`: the share of greedy answers that equal an answer of their row, over the rows that have one.
pub struct ExactMatch;

impl Evaluator for ExactMatch {
    fn names(&self, held_out: &HeldOutPrompts<'_>) -> Vec<String> {
        with_answers(held_out.prompts).next().map(|_| EXACT_MATCH.to_owned()).into_iter().collect()
    }

    fn measure(&self, held_out: &mut HeldOutPrompts<'_>) -> Result<Measured> {
        let answers = greedy(held_out.models.policy, held_out.tokenizer, held_out.prompts)?;
        Ok(Measured {
            values: share(&answers).into_iter().collect(),
            answers: lines(&answers),
            distributions: lengths("exact_match/length", &answers),
        })
    }
}

/// Why an answer ended that has more tokens than any answer of the rows.
const LONGER: &str = "longer than the expected answer";

/// Generates greedy answers to the prompts whose rows have an answer, and compares them. An answer is generated up to the length
/// of the longest answer of a row, including its end.
///
/// # Errors
/// Errors of the backend.
pub fn greedy(model: &Model, tokenizer: &Tokenizer, prompts: &[EvalPrompt]) -> Result<Vec<ComparedAnswer>> {
    let known: Vec<&EvalPrompt> = with_answers(prompts).collect();
    let max_tokens = known.iter().map(|prompt| prompt.answer_length()).max().unwrap_or(0);
    let options = GenerateOptions { max_tokens, temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let mut answers = compare(model, tokenizer, &known, &options)?;
    answers.iter_mut().for_each(|answer| name_end(&mut answer.text.finish));
    Ok(answers)
}

/// Names the limit that ended an answer: it is that of the expected answers, and not one that the user set.
fn name_end(finish: &mut &'static str) {
    if *finish == Finish::MaxTokens.as_str() {
        *finish = LONGER;
    }
}

/// Returns the share of answers that match; `None` if there are none.
pub fn share(answers: &[ComparedAnswer]) -> Option<f64> {
    let right = answers.iter().filter(|answer| answer.is_match).count();
    (!answers.is_empty()).then(|| right as f64 / answers.len() as f64)
}

/// Returns the answers as JSON objects.
pub fn lines(answers: &[ComparedAnswer]) -> AnswerLines {
    answers.iter().map(|answer| answer.line(EXACT_MATCH)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches the user's limit as the reason of an end that the expected answers set, and another reason that is replaced.
    #[test]
    fn the_limit_of_an_answer_is_named() {
        let named = |finish: Finish| {
            let mut finish = finish.as_str();
            name_end(&mut finish);
            finish
        };
        assert_eq!(named(Finish::MaxTokens), "longer than the expected answer");
        assert_eq!(named(Finish::EndOfSequence), Finish::EndOfSequence.as_str());
        assert_eq!(named(Finish::Context), Finish::Context.as_str());
    }
}
