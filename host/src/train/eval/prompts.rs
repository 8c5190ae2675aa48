//! Held-out prompts with the answers of their rows.

use plugin_api::batch::names;

use crate::{
    data::{Examples, PackedBatch, Sequence, Tokenizer},
    error::Result,
};

/// Held-out data and prompts of a run.
pub struct Evaluated {
    /// Held-out data.
    pub held_out: Vec<PackedBatch>,
    /// Held-out prompts to answer.
    pub eval_prompts: Vec<EvalPrompt>,
}

/// A prompt and the answer that its row gives.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalPrompt {
    /// The prompt as the model reads it; none of its tokens is supervised.
    prompt: Sequence,
    /// The row's answer without surrounding white space, if it has one.
    pub(super) answer: Option<String>,
    /// Other correct answers, likewise.
    pub(super) more_answers: Vec<String>,
    /// Number of tokens of the answer, including the end of text; for a truncated answer, of the part that is left.
    length: usize,
    /// The prompt's text as in the row, or decoded from its tokens.
    pub(super) text: String,
}

impl EvalPrompt {
    /// Returns the prompt as a sequence without an answer.
    pub fn prompt(&self) -> &Sequence {
        &self.prompt
    }

    /// Returns whether `text` is one of the row's answers.
    pub(super) fn is_correct(&self, text: &str) -> bool {
        self.answer.iter().chain(&self.more_answers).any(|answer| answer == text)
    }

    /// Returns the row's own answer, the first of several, if it has one.
    pub fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// Returns the prompt's text as in the row, or decoded from its tokens.
    pub fn shown(&self) -> &str {
        &self.text
    }

    /// Returns whether the row has an answer.
    pub fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Returns the number of tokens of the row's own answer, including the end of text; 0 if it has none.
    pub fn answer_length(&self) -> usize {
        self.length
    }
}

/// Returns about `most` prompts of `data`, the same ones every time, each with its row's first answer (the chosen one of a
/// pair); for rows that are only a prompt, the answer in its columns, if there is one. Rows whose prompt has no token, or with
/// only an undesirable answer, are skipped.
///
/// # Errors
/// Text that the tokenizer cannot encode or decode.
pub fn eval_prompts(data: &dyn Examples, tokenizer: &Tokenizer, most: u64) -> Result<Vec<EvalPrompt>> {
    let all = data.in_order(u32::MAX as usize, false);
    let kept = (most as usize).min(all.len());
    // Each prompt is its own group: the answers of one group would all be computed at once.
    let rows = data.some(all, kept).into_iter().zip(0..);
    let rows = rows.filter_map(|(row, group)| data.sequences(row, None, group).into_iter().next());
    rows.filter_map(|row| eval_prompt(data, tokenizer, &row).transpose()).collect()
}

fn eval_prompt(data: &dyn Examples, tokenizer: &Tokenizer, row: &Sequence) -> Result<Option<EvalPrompt>> {
    let start = row.supervised.iter().position(|supervised| *supervised).unwrap_or(row.ids.len());
    let undesirable = row.per_sequence.get(names::SIDE) == Some(&0.0);
    if start == 0 || undesirable {
        return Ok(None);
    }
    let own = data.row_text(row.row);
    let length = answer_length(tokenizer, row, start, own.as_ref().and_then(|row| row.answer.as_deref()))?;
    let has_no_end = start + length == row.ids.len() && !row.ids.last().is_some_and(|id| tokenizer.is_end(*id));
    // A template's marks may leave out the token that ends an answer; the answer is complete even so.
    let is_cut = has_no_end && own.as_ref().is_none_or(|row| row.is_cut);
    let mut more_answers = Vec::new();
    let (answer, length) = match own.filter(|_| length == 0) {
        // The rest of a truncated answer is not known.
        _ if length > 0 && is_cut => (None, length),
        _ if length > 0 => {
            let answer = &row.ids[start..start + length];
            let needs_end = !answer.last().is_some_and(|id| tokenizer.is_end(*id));
            (Some(text(tokenizer, answer)?), length + usize::from(needs_end))
        }
        Some(own) => {
            let all = own.answer.iter().chain(&own.more_answers).map(|answer| as_generated(tokenizer, answer));
            let (mut answers, lengths): (Vec<_>, Vec<_>) = all.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            more_answers = answers.split_off(answers.len().min(1));
            (answers.pop(), lengths.into_iter().max().unwrap_or_default())
        }
        None => (None, 0),
    };
    // The prompt must not stay part of a pair: neighbours with the same group are never computed separately.
    let mut numbers = row.per_sequence.clone();
    numbers.retain(|name, _| name != names::GROUP && name != names::SIDE);
    let prompt = Sequence {
        ids: row.ids[..start].to_vec(),
        supervised: vec![false; start],
        per_token: Default::default(),
        per_sequence: numbers,
        ..row.clone()
    };
    let text = match data.row_text(row.row) {
        Some(text) => text.prompt,
        None => tokenizer.decode(&prompt.ids, true)?,
    };
    Ok(Some(EvalPrompt { prompt, answer, more_answers, length, text }))
}

/// Returns how many tokens from `start` on are the row's first answer: the supervised ones there. If a template marks an answer
/// in several pieces, the answer reaches to the piece that contains `words`, the row's own text, including what the template
/// writes in between.
fn answer_length(tokenizer: &Tokenizer, row: &Sequence, start: usize, words: Option<&str>) -> Result<usize> {
    let piece = |from: usize| row.supervised[from..].iter().take_while(|supervised| **supervised).count();
    let first = piece(start);
    let Some(words) = words.map(str::trim).filter(|words| !words.is_empty() && first > 0) else {
        return Ok(first);
    };
    let (mut begin, mut end) = (start, start + first);
    loop {
        if text(tokenizer, &row.ids[begin..end])?.contains(words) {
            return Ok(end - start);
        }
        let Some(gap) = row.supervised[end..].iter().position(|supervised| *supervised) else { break };
        // After an end token another answer begins.
        if row.ids[start..end + gap].iter().any(|id| tokenizer.is_end(*id)) {
            break;
        }
        begin = end + gap;
        end = begin + piece(begin);
    }
    Ok(first)
}

/// Returns a row's answer in the form in which a model can generate it, and its number of tokens, including the end.
fn as_generated(tokenizer: &Tokenizer, answer: &str) -> Result<(String, usize)> {
    let ids = tokenizer.encode(answer)?;
    // A tokenizer may not decode a text to itself, so only text that contains special tokens is encoded and decoded.
    let spells_special = ids.iter().any(|id| tokenizer.is_special(*id));
    let words = if spells_special { text(tokenizer, &ids)? } else { answer.trim().to_owned() };
    Ok((words, ids.len() + 1))
}

/// Returns the tokens' text up to the first token that ends an answer, without special tokens and surrounding white space.
pub(super) fn text(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
    Ok(tokenizer.answer_text(ids)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SyntheticOptions;
    use crate::data::rows::{ChatTemplate, RowKind, encode::Encoder, layout::RowLayout, template::PLAIN};

    /// For every kind of row. Catches prompts that contain their answer, answers without their beginning, the rejected answer
    /// of a pair, prompts alone that are skipped, and a prompt that is still treated as part of a pair.
    #[test]
    fn an_eval_prompt_is_a_rows_prompt_with_the_answer_that_follows() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let world = SyntheticOptions {
            rows: 20,
            held_out_rows: 10,
            tasks: Vec::new(),
            equal_length: false,
            flawed: 0.0,
            segments: false,
            hint: false,
            seed: 1,
        };
        for kind in [RowKind::PromptCompletion, RowKind::Preference, RowKind::Prompt] {
            let corpus = world.read_rows(kind).unwrap();
            let template = ChatTemplate::new(PLAIN, &tokenizer).unwrap();
            let layout = RowLayout { template, strings: false };
            let encoder = Encoder::new(&tokenizer, &layout, 128);
            let data = encoder.encode(&corpus).unwrap();
            let prompts = eval_prompts(&*data.held_out, &tokenizer, 100).unwrap();
            assert_eq!(prompts.len(), 10, "{kind:?}");
            for (eval_prompt, row) in prompts.iter().zip(corpus.held_out.to_vec()) {
                let prompt: Vec<u32> = eval_prompt.prompt.ids.clone();
                assert_eq!(tokenizer.decode(&prompt, false).unwrap().trim(), row.question());
                let answer = eval_prompt.answer.as_deref().unwrap();
                assert_eq!(telos_world::gold(&row.question(), answer), Some(1.0), "{answer}");
                assert_eq!(eval_prompt.length, answer.len() + 1);
                for name in [names::GROUP, names::SIDE] {
                    assert!(!eval_prompt.prompt.per_sequence.contains_key(name), "{kind:?}: {name}");
                }
            }
        }
    }

    /// Catches an expectation of only the first marked piece of an answer, so that a perfect model is counted as wrong; one
    /// that continues into the next turn; and a complete answer without an end token that is treated as truncated.
    #[test]
    fn an_answer_marked_in_pieces_is_expected_whole() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let answers = |marks: &str, turns: &[(&str, &str)]| {
            let template = format!(
                "{{% for m in messages %}}{{% if m.role == 'assistant' %}}{marks}{{% else %}}{{{{ m.content }}}}:{{% endif %}}{{% endfor %}}"
            );
            let messages: Vec<_> =
                turns.iter().map(|(role, content)| serde_json::json!({"role": role, "content": content})).collect();
            let line = serde_json::json!({"messages": messages}).to_string();
            let kind = RowKind::PromptCompletion;
            let train = crate::data::rows::jsonl::parse("r.jsonl".as_ref(), &line, kind, &Default::default()).unwrap();
            let corpus = crate::data::rows::RowCorpus::of(String::new(), kind, train).unwrap();
            let layout = RowLayout { template: ChatTemplate::new(&template, &tokenizer).unwrap(), strings: false };
            let encoder = Encoder::new(&tokenizer, &layout, 200);
            let prompts = eval_prompts(&*encoder.encode(&corpus).unwrap().train, &tokenizer, 100).unwrap();
            prompts.into_iter().map(|prompt| (prompt.answer, prompt.length)).collect::<Vec<_>>()
        };
        let expected = |answer: &str, length: usize| vec![(Some(answer.to_owned()), length)];
        let two = [("user", "q"), ("assistant", "long"), ("user", "r"), ("assistant", "d")];
        let pieces =
            "{% generation %}<t>{% endgeneration %} - {% generation %}{{ m.content + eos_token }}{% endgeneration %};";
        assert_eq!(answers(pieces, &two), expected("<t> - long", 11));
        let no_end = "{% generation %}<t>{% endgeneration %} - {% generation %}{{ m.content }}{% endgeneration %}";
        assert_eq!(answers(no_end, &two), expected("<t> - long", 11));
        let one = "{% generation %}{{ m.content }}{% endgeneration %}";
        assert_eq!(answers(one, &two), expected("long", 5));
        assert_eq!(answers(one, &two[..2]), expected("long", 5));
        // The template adds and marks these words, so they are learned.
        assert_eq!(answers("{% generation %}x{% endgeneration %};{{ m.content }}", &two), expected("x", 2));
    }

    /// Catches a truncated answer as the expected one, which a model that continues can never give.
    #[test]
    fn a_truncated_answer_is_not_expected() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let row = |completion: &str| format!("{}\n", serde_json::json!({"prompt": "ab", "completion": completion}));
        let text = row("c") + &row("defghij");
        let kind = RowKind::PromptCompletion;
        let train = crate::data::rows::jsonl::parse("r.jsonl".as_ref(), &text, kind, &Default::default()).unwrap();
        let corpus = crate::data::rows::RowCorpus::of(String::new(), kind, train).unwrap();
        let layout = RowLayout { template: ChatTemplate::new(PLAIN, &tokenizer).unwrap(), strings: false };
        let encoder = Encoder::new(&tokenizer, &layout, 6);
        let data = encoder.encode(&corpus).unwrap();
        assert_eq!(data.rows.unwrap().truncated, 1);
        let prompts = eval_prompts(&*data.train, &tokenizer, 100).unwrap();
        let answers: Vec<Option<&str>> = prompts.iter().map(|prompt| prompt.answer.as_deref()).collect();
        assert_eq!(answers, [Some("c"), None]);
    }
}
