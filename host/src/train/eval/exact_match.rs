//! Exact match: greedy answers to held-out prompts, compared with the rows' own completions.

use plugin_api::batch::names;

use crate::{
    data::{Examples, Sequence, Tokenizer},
    error::Result,
    generate::{GenerateOptions, generate, text::SampleText},
    model::Model,
};

/// The metric's name, without the `eval/` before it.
pub const EXACT_MATCH: &str = "exact_match";

/// A prompt with the answer its row gives.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalPrompt {
    /// The prompt as the model reads it, nothing supervised.
    prompt: Sequence,
    /// The answer, without the space around it, where the row has one.
    answer: Option<String>,
    /// Other right answers, likewise.
    more_answers: Vec<String>,
    /// How many tokens it takes, the end of text included; of one that was cut off, those that are there.
    length: usize,
    /// The prompt as the row has it, or as its tokens read.
    asked: String,
}

/// A greedy answer, compared with the row's own.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedAnswer {
    /// Prompt, answer, its length and end.
    pub text: SampleText,
    /// The row's answer, the first of several.
    pub expected: String,
    /// Its other right answers.
    pub more_expected: Vec<String>,
    /// Whether both are the same.
    pub is_match: bool,
}

/// Greedy answers to all prompts whose rows have one.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactMatch {
    /// The share that are as their rows have them.
    pub share: f64,
    /// Each of them.
    pub answers: Vec<ComparedAnswer>,
}

impl EvalPrompt {
    /// The prompt, as a sequence without an answer.
    pub fn prompt(&self) -> &Sequence {
        &self.prompt
    }

    /// Whether `said` is an answer that the row gives.
    fn is_right(&self, said: &str) -> bool {
        self.answer.iter().chain(&self.more_answers).any(|answer| answer == said)
    }

    /// The row's own answer, the first of several, where it has one.
    pub fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// Whether the row gives an answer.
    pub fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// How many tokens the row's own answer takes, the end of text included; 0 where it has none.
    pub fn answer_length(&self) -> usize {
        self.length
    }
}

/// About `most` questions of `data`, the same ones every time: of each row its first answer (of a pair the chosen one), of a
/// prompt alone the answer among its columns, where there is one. A row whose prompt has no token, or that only has an
/// undesirable answer, asks nothing.
///
/// # Errors
/// Text that the tokenizer cannot read or write.
pub fn questions(data: &dyn Examples, tokenizer: &Tokenizer, most: u64) -> Result<Vec<EvalPrompt>> {
    let all = data.in_order(u32::MAX as usize, false);
    let kept = (most as usize).min(all.len());
    // Each a group of its own: answers of one group would all be computed at a time.
    let rows = data.some(all, kept).into_iter().zip(0..);
    let rows = rows.filter_map(|(row, group)| data.sequences(row, None, group).into_iter().next());
    let asked = rows.filter_map(|row| question(data, tokenizer, &row).transpose());
    asked.collect()
}

fn question(data: &dyn Examples, tokenizer: &Tokenizer, row: &Sequence) -> Result<Option<EvalPrompt>> {
    let start = row.supervised.iter().position(|supervised| *supervised).unwrap_or(row.ids.len());
    let undesirable = row.numbers.get(names::SIDE) == Some(&0.0);
    if start == 0 || undesirable {
        return Ok(None);
    }
    let own = data.row_text(row.row);
    let length = answer_length(tokenizer, row, start, own.and_then(|row| row.answer.as_deref()))?;
    let has_no_end = start + length == row.ids.len() && !row.ids.last().is_some_and(|id| tokenizer.is_end(*id));
    // A template's marks may leave out the token that ends an answer, and the answer is whole all the same.
    let is_cut = has_no_end && own.is_none_or(|row| row.is_cut);
    let mut more_answers = Vec::new();
    let (answer, length) = match own.filter(|_| length == 0) {
        // Of an answer that was cut to length nobody knows the rest.
        _ if length > 0 && is_cut => (None, length),
        _ if length > 0 => {
            let answer = &row.ids[start..start + length];
            let needs_end = !answer.last().is_some_and(|id| tokenizer.is_end(*id));
            (Some(text(tokenizer, answer)?), length + usize::from(needs_end))
        }
        Some(own) => {
            let all = own.answer.iter().chain(&own.more_answers).map(|answer| as_said(tokenizer, answer));
            let (mut answers, lengths): (Vec<_>, Vec<_>) = all.collect::<Result<Vec<_>>>()?.into_iter().unzip();
            more_answers = answers.split_off(answers.len().min(1));
            (answers.pop(), lengths.into_iter().max().unwrap_or_default())
        }
        None => (None, 0),
    };
    // A prompt by itself is no side of a pair: neighbours that share a group are never computed apart.
    let mut numbers = row.numbers.clone();
    numbers.retain(|name, _| name != names::GROUP && name != names::SIDE);
    let prompt = Sequence {
        ids: row.ids[..start].to_vec(),
        supervised: vec![false; start],
        tokens: Default::default(),
        numbers,
        ..row.clone()
    };
    let asked = match data.row_text(row.row) {
        Some(text) => text.prompt.clone(),
        None => tokenizer.decode(&prompt.ids, true)?,
    };
    Ok(Some(EvalPrompt { prompt, answer, more_answers, length, asked }))
}

/// How many tokens from `start` on are the row's first answer: the supervised ones there. A template may mark an answer in several
/// pieces; then it goes as far as the piece that holds `words`, the row's own, with what the template writes in between.
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
        // Behind an end another answer begins.
        if row.ids[start..end + gap].iter().any(|id| tokenizer.is_end(*id)) {
            break;
        }
        begin = end + gap;
        end = begin + piece(begin);
    }
    Ok(first)
}

/// An answer of a row as a model can say it, and how many tokens that takes, its end included.
fn as_said(tokenizer: &Tokenizer, answer: &str) -> Result<(String, usize)> {
    let ids = tokenizer.encode(answer)?;
    // A tokenizer may not give a text back as it was, so that only what spells special tokens goes through it.
    let spells_special = ids.iter().any(|id| tokenizer.is_special(*id));
    let words = if spells_special { text(tokenizer, &ids)? } else { answer.trim().to_owned() };
    Ok((words, ids.len() + 1))
}

/// The tokens' text up to the first that ends an answer, without special tokens and the space around it.
fn text(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
    Ok(tokenizer.answer_text(ids)?.trim().to_owned())
}

/// Greedy answers to the questions whose rows have an answer, compared with it, both up to the first token that ends an answer;
/// special tokens and the space around an answer do not count. `None` where no question has one.
///
/// # Errors
/// The backend's.
pub fn exact_match(model: &Model, tokenizer: &Tokenizer, questions: &[EvalPrompt]) -> Result<Option<ExactMatch>> {
    let known: Vec<&EvalPrompt> = questions.iter().filter(|question| question.answer.is_some()).collect();
    let Some(longest) = known.iter().map(|question| question.length).max() else { return Ok(None) };
    let options = GenerateOptions { max_tokens: longest, temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 };
    let ids = |question: &&EvalPrompt| question.prompt.ids.iter().map(|id| *id as i32).collect();
    let prompts: Vec<Vec<i32>> = known.iter().map(ids).collect();
    let mut answers = Vec::with_capacity(known.len());
    for (completion, question) in generate(model, &prompts, &options, &mut |_| {})?.iter().zip(&known) {
        let ids: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
        let answer = text(tokenizer, &ids)?;
        answers.push(ComparedAnswer {
            is_match: question.is_right(&answer),
            expected: question.answer.clone().unwrap_or_default(),
            more_expected: question.more_answers.clone(),
            text: SampleText {
                prompt: question.asked.clone(),
                text: answer,
                tokens: completion.tokens.len(),
                finish: completion.finish.as_str(),
            },
        });
    }
    let right = answers.iter().filter(|answer| answer.is_match).count();
    Ok(Some(ExactMatch { share: right as f64 / known.len() as f64, answers }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SyntheticOptions;
    use crate::data::rows::{ChatTemplate, RowKind, encode::Encoder, layout::Layout, template::PLAIN};

    /// Of every kind of row. Catches prompts that give their answer away, answers without their beginning, the rejected
    /// answer of a pair, prompts alone that are not asked, and a question that is still taken for a side of a pair.
    #[test]
    fn a_question_is_a_rows_prompt_and_its_answer_what_follows() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let world = SyntheticOptions {
            rows: 20,
            held_out_rows: 10,
            tasks: Vec::new(),
            equal_length: false,
            flawed: 0.0,
            seed: 1,
        };
        for kind in [RowKind::PromptCompletion, RowKind::Preference, RowKind::Prompt] {
            let corpus = world.read_rows(kind).unwrap();
            let template = ChatTemplate::new(PLAIN, &tokenizer).unwrap();
            let layout = Layout { template, strings: false };
            let encoder = Encoder { tokenizer: &tokenizer, layout: &layout, longest: 128, truncation: None };
            let data = encoder.encode(&corpus).unwrap();
            let asked = questions(&*data.held_out, &tokenizer, 100).unwrap();
            assert_eq!(asked.len(), 10, "{kind:?}");
            for (question, row) in asked.iter().zip(&corpus.held_out) {
                let prompt: Vec<u32> = question.prompt.ids.clone();
                assert_eq!(tokenizer.decode(&prompt, false).unwrap().trim(), row.question());
                let answer = question.answer.as_deref().unwrap();
                assert_eq!(telos_world::gold(&row.question(), answer), Some(1.0), "{answer}");
                assert_eq!(question.length, answer.len() + 1);
                for name in [names::GROUP, names::SIDE] {
                    assert!(!question.prompt.numbers.contains_key(name), "{kind:?}: {name}");
                }
            }
        }
    }

    /// Catches an answer of which only the first marked piece is expected, so that a perfect model is wrong; one that runs on into the
    /// next turn; and a whole answer without its end that is taken for one that was cut off.
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
            let corpus = crate::data::rows::RowCorpus { kind, train, ..Default::default() };
            let layout = Layout { template: ChatTemplate::new(&template, &tokenizer).unwrap(), strings: false };
            let encoder = Encoder { tokenizer: &tokenizer, layout: &layout, longest: 200, truncation: None };
            let asked = questions(&*encoder.encode(&corpus).unwrap().train, &tokenizer, 100).unwrap();
            asked.into_iter().map(|question| (question.answer, question.length)).collect::<Vec<_>>()
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
        // Only other words than the row's own are marked: they are what is learned.
        assert_eq!(answers("{% generation %}x{% endgeneration %};{{ m.content }}", &two), expected("x", 2));
    }

    /// Catches an answer that was cut to length and that the model, which goes on, can never give.
    #[test]
    fn nobody_is_asked_for_the_beginning_of_an_answer() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let row = |completion: &str| format!("{}\n", serde_json::json!({"prompt": "ab", "completion": completion}));
        let text = row("c") + &row("defghij");
        let kind = RowKind::PromptCompletion;
        let train = crate::data::rows::jsonl::parse("r.jsonl".as_ref(), &text, kind, &Default::default()).unwrap();
        let corpus = crate::data::rows::RowCorpus { kind, train, ..Default::default() };
        let layout = Layout { template: ChatTemplate::new(PLAIN, &tokenizer).unwrap(), strings: false };
        let encoder = Encoder { tokenizer: &tokenizer, layout: &layout, longest: 6, truncation: None };
        let data = encoder.encode(&corpus).unwrap();
        assert_eq!(data.rows.unwrap().truncated, 1);
        let asked = questions(&*data.train, &tokenizer, 100).unwrap();
        let answers: Vec<Option<&str>> = asked.iter().map(|question| question.answer.as_deref()).collect();
        assert_eq!(answers, [Some("c"), None]);
    }
}
