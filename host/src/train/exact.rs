//! Exact match: greedy answers to held-out prompts, compared with the rows' own completions.

use crate::{
    data::{Examples, Tokenizer},
    error::Result,
    generate::{GenerateOptions, generate},
    model::Model,
};

/// The metric's name, without the `eval/` before it.
pub const EXACT_MATCH: &str = "exact_match";

/// A prompt with the answer its row gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The prompt as the model reads it.
    prompt: Vec<i32>,
    /// The answer, its end-of-text token included.
    answer: Vec<u32>,
}

/// About `most` questions of `data`, the same ones every time: of each row its first answer. A row whose prompt has no token
/// asks nothing.
pub fn questions(data: &dyn Examples, most: u64) -> Vec<Question> {
    let all = data.in_order(u32::MAX as usize, false);
    let kept = (most as usize).min(all.len());
    let rows = data.some(all, kept).into_iter().filter_map(|row| data.sequences(row, None, 0).into_iter().next());
    rows.filter_map(|row| {
        let start = row.supervised.iter().position(|supervised| *supervised).filter(|start| *start > 0)?;
        let length = row.supervised[start..].iter().take_while(|supervised| **supervised).count();
        let prompt = row.ids[..start].iter().map(|id| *id as i32).collect();
        Some(Question { prompt, answer: row.ids[start..start + length].to_vec() })
    })
    .collect()
}

/// The share of `questions` that greedy decoding answers as the rows do, up to the end-of-text token; space around an answer
/// does not count. 0 without questions.
///
/// # Errors
/// The backend's.
pub fn exact_match(model: &Model, tokenizer: &Tokenizer, questions: &[Question]) -> Result<f64> {
    let longest = questions.iter().map(|question| question.answer.len()).max().unwrap_or(0);
    let options = GenerateOptions { max_tokens: longest, temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
    let prompts: Vec<Vec<i32>> = questions.iter().map(|question| question.prompt.clone()).collect();
    let text = |ids: &[u32]| -> Result<String> {
        let end = ids.iter().position(|id| Some(*id) == tokenizer.eos()).unwrap_or(ids.len());
        Ok(tokenizer.decode(&ids[..end], false)?.trim().to_owned())
    };
    let mut right = 0;
    for (completion, question) in generate(model, &prompts, &options, &mut |_| {})?.iter().zip(questions) {
        let ids: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
        right += usize::from(text(&ids)? == text(&question.answer)?);
    }
    Ok(right as f64 / questions.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SyntheticOptions;
    use crate::data::rows::{ChatTemplate, Truncation, encode::Encoder, layout::Layout, template::PLAIN};

    /// Catches prompts that give their answer away, and answers without their beginning.
    #[test]
    fn a_question_is_a_rows_prompt_and_its_answer_what_follows() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let corpus = SyntheticOptions { rows: 20, held_out_rows: 10, tasks: Vec::new(), seed: 1 }.read_rows().unwrap();
        let template = ChatTemplate::new(PLAIN, &tokenizer).unwrap();
        let layout = Layout { template, strings: false };
        let encoder = Encoder { tokenizer: &tokenizer, layout: &layout, longest: 128, truncation: Truncation::Right };
        let data = encoder.encode(&corpus).unwrap();
        assert_eq!(questions(&*data.held_out, 100).len(), 10);
        for (question, row) in questions(&*data.held_out, 10).iter().zip(&corpus.held_out) {
            let prompt: Vec<u32> = question.prompt.iter().map(|id| *id as u32).collect();
            assert_eq!(tokenizer.decode(&prompt, false).unwrap().trim(), row.question());
            let answer = tokenizer.decode(&question.answer, true).unwrap();
            assert_eq!(telos_world::gold(&row.question(), &answer), Some(1.0), "{answer:?}");
            assert_eq!(question.answer.last(), tokenizer.eos().as_ref());
        }
    }
}
