//! Multiple choice with a chat template: the text of a question up to a choice, and of the choice, so that only a choice's own
//! tokens are scored.

use serde_json::{Value, json};

use super::answer_rows::ENDED;
use crate::{
    data::{
        Tokenizer,
        rows::{
            ASSISTANT, ChatTemplate, Content, Message, Part, Row,
            write::{layout::RowLayout, places::STAND_IN},
        },
    },
    error::Result,
};

/// Writes the contents of messages one after the other and nothing else.
const CONTENTS: &str = "{% for message in messages %}{{ message.content }}{% endfor %}";

/// The mark of an answer that has no end: nothing is added to it.
const NO_END: (&str, Value) = (ENDED, Value::Bool(false));

/// The layout of rows of [`rows`] that a template wrote; texts without a template are joined unchanged.
///
/// # Errors
/// A tokenizer that fails.
pub fn layout(tokenizer: &Tokenizer) -> Result<RowLayout> {
    Ok(RowLayout { template: ChatTemplate::of("the text of a question", CONTENTS, tokenizer)?, strings: false })
}

/// Returns a row for each choice: the prompt as `written` writes it, with the choice as completion, and nothing after it.
///
/// A choice begins where the prompt ends that generation would continue, as the target does in lm-evaluation-harness, so that white
/// space which the template writes before an answer counts as part of the choice. If the template writes more there, such as an
/// empty `<think></think>`, that is part of the prompt.
///
/// # Errors
/// A template that fails, with file and line.
pub fn rows(row: &Row, choices: &[String], written: &RowLayout) -> Result<Vec<Row>> {
    if !written.templates(row) {
        return Ok(choices.iter().map(|choice| with_choice(row, &joined(row, choice))).collect());
    }
    let opened = written.lay_out(row, Part::Prompt)?.text;
    let around = written.lay_out(&with_choice(row, STAND_IN), Part::Completion).ok();
    let around = around
        .and_then(|laid| laid.text.rsplit_once(STAND_IN).map(|(before, after)| (before.to_owned(), after.to_owned())));
    let of_choice = |choice: &String| -> Result<Row> {
        let laid = written.lay_out(&with_choice(row, choice), Part::Completion)?;
        let between =
            around.as_ref().and_then(|(before, after)| {
                let words = laid.text.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                let seam = before.strip_prefix(opened.as_str()).filter(|seam| seam.trim().is_empty());
                Some(seam.map_or_else(
                    || (before.clone(), words.to_owned()),
                    |seam| (opened.clone(), format!("{seam}{words}")),
                ))
            });
        // A template whose other text depends on the answer: what it marks as the answer counts.
        let (prompt, words) = between.unwrap_or_else(|| {
            let start = laid.supervised.first().map_or(0, |span| span.start);
            let end = laid.supervised.last().map_or(0, |span| span.end);
            let text = |from: usize, to: usize| laid.text.chars().take(to).skip(from).collect::<String>();
            (text(0, start), text(start, end))
        });
        let part = |role: &str, text: String| Content::Messages(vec![message(role, text)]);
        let parts = [(Part::Prompt, part("user", prompt)), (Part::Completion, part(ASSISTANT, words))];
        Ok(Row {
            place: row.place.clone(),
            parts: parts.into_iter().collect(),
            columns: [NO_END].map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
            segments: Vec::new(),
        })
    };
    choices.iter().map(of_choice).collect()
}

/// Joins a choice to a prompt without a template: with a space, unless one of them has white space there.
fn joined(row: &Row, choice: &str) -> String {
    let Some(Content::Text(prompt)) = row.parts.get(&Part::Prompt) else { return choice.to_owned() };
    let has_space =
        prompt.is_empty() || prompt.ends_with(char::is_whitespace) || choice.starts_with(char::is_whitespace);
    if has_space { choice.to_owned() } else { format!(" {choice}") }
}

/// The row of a question with one of its choices as completion.
fn with_choice(row: &Row, choice: &str) -> Row {
    let mut parts = row.parts.clone();
    let completion = match row.has_messages() {
        true => Content::Messages(vec![message(ASSISTANT, choice.to_owned())]),
        false => Content::Text(choice.to_owned()),
    };
    parts.insert(Part::Completion, completion);
    let mut columns = row.columns.clone();
    columns.retain(|name, _| name == "tools" || name == "documents" || name == "chat_template_kwargs");
    columns.insert(NO_END.0.to_owned(), NO_END.1);
    Row { place: row.place.clone(), parts, columns, segments: Vec::new() }
}

fn message(role: &str, content: String) -> Message {
    [("role", json!(role)), ("content", json!(content))]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rows::{Columns, RowKind, jsonl::parse};

    /// The prompts and choices of a row: what the template writes, and the choices' own text.
    fn of(template: &str, line: &Value) -> Vec<(String, String)> {
        let tokenizer = Tokenizer::bytes().unwrap();
        let written = RowLayout { template: ChatTemplate::new(template, &tokenizer).unwrap(), strings: false };
        let read = parse("q.jsonl".as_ref(), &format!("{line}\n"), RowKind::Prompt, &Columns::default()).unwrap();
        let rows = rows(&read[0], &["no".to_owned(), "d".to_owned()], &written).unwrap();
        let laid = |row: &Row, part| layout(&tokenizer).unwrap().lay_out(row, part).unwrap();
        let both = |row: &Row| {
            let (prompt, whole) = (laid(row, Part::Prompt).text, laid(row, Part::Completion));
            assert_eq!(whole.supervised, vec![prompt.chars().count()..whole.text.chars().count()]);
            (prompt.clone(), whole.text.strip_prefix(&prompt).unwrap().to_owned())
        };
        rows.iter().map(both).collect()
    }

    /// Catches text that a template writes after an answer and that counts as part of the choice, a choice that is found in that
    /// text, words before an answer that count, and the space before an answer that does not.
    #[test]
    fn a_choice_is_its_own_words_and_the_white_space_before_them() {
        let chat = json!({"prompt": [{"role": "user", "content": "q"}]});
        let choices = |prompt: &str, before: &str| {
            ["no", "d"].map(|words| (prompt.to_owned(), format!("{before}{words}"))).to_vec()
        };
        let llama = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]\
                     {% else %} {{ m.content }} </end>{% endif %}{% endfor %}";
        assert_eq!(of(llama, &chat), choices("[INST] q [/INST]", " "));
        let brackets = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n</end>{% endfor %}";
        assert_eq!(of(brackets, &chat), choices("[user] q\n</end>[assistant] ", ""));
        let chatml = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|assistant|>\n{% endif %}";
        assert_eq!(of(chatml, &chat), choices("<|user|>\nq<|end|>\n<|assistant|>\n", ""));
        let thinks = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}<think></think>\n{% endif %}\
                      {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
        assert_eq!(of(thinks, &chat), choices("<|user|>q<|end|><|assistant|><think></think>\n", ""));
        let marks = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}</end>\
                     {% endgeneration %}{% else %}{{ m.content }};{% endif %}{% endfor %}\
                     {% if add_generation_prompt %}assistant: {% endif %}";
        assert_eq!(of(marks, &chat), choices("user: q;assistant: ", ""));
        assert_eq!(of(marks, &json!({"prompt": "q:"})), choices("q:", " "));
        assert_eq!(of(marks, &json!({"prompt": "q:\n"})), choices("q:\n", ""));
    }
}
