//! Multiple choice: which of several texts is the most probable continuation of a prompt.
//!
//! The log-probability of a choice is the sum over its own tokens, without what ends the answer; see
//! [`rows`](written_choices::rows) for where a choice begins. Long choices have
//! lower sums, so three rules are usual, and all are reported:
//!
//! ```text
//! sum             log p(choice | prompt)                          acc of lm-evaluation-harness
//! per token       log p(choice | prompt) / tokens of the choice
//! per character   log p(choice | prompt) / characters             acc_norm of lm-evaluation-harness
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{spread::mean, written_choices};
use crate::{
    data::{
        DataError,
        rows::{
            Columns, Part, Row, RowCorpus, RowKind, RowOptions, Truncation,
            encode::Encoder,
            kind::{ANSWER, CHOICES},
        },
    },
    error::{Error, Result},
    inference::{saved_model::Opened, templates::layout},
};

/// Which questions to ask, and how they are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChoicesToEvaluate {
    /// Files, folders or globs; at least one.
    pub paths: Vec<String>,
    /// `plain`, `tokenizer`, `tokenizer:NAME` or a template's file; `None`: messages use the tokenizer's template, plain texts none.
    pub chat_template: Option<String>,
    /// Names of the columns in the files, if they differ.
    pub columns: Columns,
}

/// Results of multiple choice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChoiceFigures {
    /// Share of questions whose right choice has the highest log-probability.
    pub accuracy: f64,
    /// Its standard error.
    pub accuracy_stderr: Option<f64>,
    /// As `accuracy`, by log-probability per token.
    pub accuracy_per_token: f64,
    /// Its standard error.
    pub accuracy_per_token_stderr: Option<f64>,
    /// As `accuracy`, by log-probability per character.
    pub accuracy_per_character: f64,
    /// Its standard error.
    pub accuracy_per_character_stderr: Option<f64>,
    /// Share of right answers if one was chosen at random.
    pub chance: f64,
    /// Questions.
    pub questions: usize,
    /// Choices whose prompt was cut on the left to fit into the model's context.
    pub truncated: usize,
    /// A line for each question, with the numbers of its choices.
    #[serde(skip)]
    pub lines: Vec<Value>,
}

/// A question as it was read.
struct Question {
    choices: Vec<String>,
    right: usize,
}

/// A choice's log-probability, the tokens it is the sum of, and whether the end of the answer was reached.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    logp: f64,
    tokens: usize,
    ended: bool,
}

impl Opened {
    /// Measures how often the right choice is the most probable one.
    ///
    /// # Errors
    /// Rows without a prompt, choices or a right answer, with file and line; errors of the backend.
    pub fn evaluate_choices(&mut self, wanted: &ChoicesToEvaluate) -> Result<ChoiceFigures> {
        self.check_predicts()?;
        let rows = read(wanted)?;
        let layout = layout(&self.tokenizer, wanted.chat_template.as_deref(), rows.iter().any(Row::has_messages))?;
        if rows.iter().any(|row| layout.templates(row)) {
            self.end_turns_of(&layout.template)?;
        }
        let questions = rows.iter().map(question).collect::<Result<Vec<_>>>()?;
        if self.tokenizer.prefix().is_none()
            && let Some(row) = rows.iter().find(|row| row.text().prompt.is_empty() && !layout.templates(row))
        {
            let what = "empty: the model has nothing to predict the first token of a choice from".to_owned();
            return Err(Error::from(DataError::Json {
                place: row.place.clone(),
                key: Part::Prompt.name().into(),
                what,
            })
            .with_hint("move the words that all choices begin with to the prompt"));
        }
        let mut choices = Vec::new();
        for (row, question) in rows.iter().zip(&questions) {
            choices.extend(written_choices::rows(row, &question.choices, &layout)?);
        }
        let layout = written_choices::layout(&self.tokenizer)?;
        let corpus = RowCorpus::of(wanted.paths.join(", "), RowKind::PromptCompletion, choices)?;
        let context = self.model.config().context as usize;
        let encoder = Encoder { truncation: Some(Truncation::Left), ..Encoder::new(&self.tokenizer, &layout, context) };
        let data = encoder.encode(&corpus)?;
        let mut scores: BTreeMap<u64, Score> = BTreeMap::new();
        self.score_all(&*data.train, &mut |found| {
            let score = scores.entry(found.row).or_default();
            // A choice may contain the token that ends answers.
            score.ended |= self.tokenizer.is_end(found.target);
            if !score.ended {
                score.logp += found.logp;
                score.tokens += 1;
            }
        })?;
        let mut number = 0..;
        let mut right: [Vec<f64>; 3] = Default::default();
        let (mut lines, mut chance) = (Vec::with_capacity(rows.len()), 0.0);
        for (row, question) in rows.iter().zip(&questions) {
            let own: Vec<Score> = question
                .choices
                .iter()
                .zip(&mut number)
                .map(|(choice, number)| {
                    let found = scores.get(&number).filter(|score| score.tokens > 0).copied();
                    found.ok_or_else(|| unscored(row, choice, context))
                })
                .collect::<Result<_>>()?;
            let characters: Vec<usize> = question.choices.iter().map(|choice| choice.chars().count()).collect();
            let sums: Vec<f64> = own.iter().map(|score| score.logp).collect();
            let per = |counts: &dyn Fn(usize) -> usize| -> Vec<f64> {
                sums.iter().enumerate().map(|(at, sum)| sum / counts(at).max(1) as f64).collect()
            };
            let chosen = [best(&sums), best(&per(&|at| own[at].tokens)), best(&per(&|at| characters[at]))];
            for (right, chosen) in right.iter_mut().zip(chosen) {
                right.push(f64::from(u8::from(chosen == question.right)));
            }
            chance += 1.0 / question.choices.len() as f64;
            lines.push(json!({
                "prompt": row.text().prompt,
                "choices": question.choices,
                "answer": question.right,
                "logprobs": sums,
                "tokens": own.iter().map(|score| score.tokens).collect::<Vec<_>>(),
                "characters": characters,
                "chosen": chosen[0],
                "chosen_per_token": chosen[1],
                "chosen_per_character": chosen[2],
                "match": chosen[0] == question.right,
            }));
        }
        let [sum, per_token, per_character] = right.map(|right| mean(&right));
        let cut = data.rows.as_ref().map_or(0, |counts| counts.truncated);
        Ok(ChoiceFigures {
            accuracy: sum.0,
            accuracy_stderr: sum.1,
            accuracy_per_token: per_token.0,
            accuracy_per_token_stderr: per_token.1,
            accuracy_per_character: per_character.0,
            accuracy_per_character_stderr: per_character.1,
            chance: chance / rows.len().max(1) as f64,
            questions: rows.len(),
            truncated: cut,
            lines,
        })
    }
}

fn unscored(row: &Row, choice: &str, context: usize) -> Error {
    let what =
        format!("the choice {choice:?} has no token, or does not fit into the model's context length of {context}");
    DataError::Json { place: row.place.clone(), key: CHOICES.to_owned(), what }.into()
}

/// The index of the highest value, the first among equals.
fn best(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// Reads the rows as prompts; `question` is another usual name of the prompt.
fn read(wanted: &ChoicesToEvaluate) -> Result<Vec<Row>> {
    let read = |columns: &Columns| RowOptions::all(wanted.paths.clone(), columns.clone()).read(RowKind::Prompt);
    let error = match read(&wanted.columns) {
        Ok(corpus) => return Ok(corpus.train.iter().collect::<Result<Vec<_>, _>>()?),
        Err(DataError::Empty(_) | DataError::NoRow { .. }) => {
            return Err(Error::request(format!("{}: there is no question", wanted.paths.join(", "))).with_hint(EXAMPLE));
        }
        Err(error) => error,
    };
    let mut columns = wanted.columns.clone();
    if columns.insert(Part::Prompt.name().to_owned(), "question".to_owned()).is_none()
        && let Ok(corpus) = read(&columns)
    {
        return Ok(corpus.train.iter().collect::<Result<Vec<_>, _>>()?);
    }
    Err(Error::from(error).with_hint(EXAMPLE))
}

const EXAMPLE: &str = "a row is {\"prompt\": \"2 + 2 =\", \"choices\": [\"3\", \"4\"], \"answer\": 1}; --column prompt=NAME names another column";

/// Returns a row's choices and the index of the right one.
fn question(row: &Row) -> Result<Question> {
    let refuse = |key: &str, what: &str| -> Error {
        Error::from(DataError::Json { place: row.place.clone(), key: key.to_owned(), what: what.to_owned() })
            .with_hint(EXAMPLE)
    };
    let texts = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let labels = |value: &Value| -> Option<Vec<String>> { value.as_array()?.iter().map(label).collect() };
    let (choices, labels) = match row.columns.get(CHOICES) {
        None | Some(Value::Null) => return Err(refuse(CHOICES, "missing: a list of at least two texts")),
        Some(Value::Object(both)) => {
            let named = both.get("label").filter(|label| !label.is_null());
            let of_choices = named.map(|value| {
                labels(value).ok_or_else(|| refuse(CHOICES, "`label` is not a list of texts or integers"))
            });
            (both.get("text").and_then(texts), of_choices.transpose()?)
        }
        Some(list) => (texts(list), None),
    };
    let choices = choices.filter(|choices| choices.len() > 1 && choices.iter().all(|choice| !choice.trim().is_empty()));
    let choices = choices.ok_or_else(|| {
        refuse(CHOICES, "expected a list of at least two texts, or an object with the lists `text` and `label`")
    })?;
    let answer = row.columns.get(ANSWER).filter(|answer| !answer.is_null());
    let answer = answer.ok_or_else(|| refuse(ANSWER, "missing: the right choice's index from 0, letter or text"))?;
    let right = right(answer, &choices, labels.as_deref());
    let right = right.ok_or_else(|| {
        refuse(
            ANSWER,
            &format!(
                "{answer} is none of the {} choices: expected an index from 0, a letter, a label or a choice's text",
                choices.len()
            ),
        )
    })?;
    Ok(Question { choices, right })
}

/// A label as a text.
fn label(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// The index that an answer means. With labels, an answer that is one of them means its choice. A number is an index from 0; a text is
/// a choice's text, a letter from A, or an index from 0, the first of these that fits.
fn right(answer: &Value, choices: &[String], labels: Option<&[String]>) -> Option<usize> {
    let within = |index: usize| (index < choices.len()).then_some(index);
    let named = label(answer);
    if let Some(at) = labels.and_then(|labels| labels.iter().position(|label| Some(label) == named.as_ref())) {
        return within(at);
    }
    // Where labels are integers, an integer that is not among them is a mistake. Read as an index it would give a choice, but rows in
    // which the same integer is a label mean another one.
    let is_integer = |text: &String| text.parse::<i64>().is_ok();
    let is_choice = answer.as_str().is_some_and(|text| choices.iter().any(|choice| choice.trim() == text.trim()));
    if !is_choice
        && labels.is_some_and(|labels| labels.iter().any(is_integer))
        && named.as_ref().is_some_and(is_integer)
    {
        return None;
    }
    let text = match answer {
        // Tables with gaps write integers as 1.0.
        Value::Number(number) => {
            let whole = number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..1e9).contains(value));
            return number.as_u64().or(whole.map(|value| value as u64)).and_then(|index| within(index as usize));
        }
        Value::String(text) => text.trim(),
        _ => return None,
    };
    let of_text = || choices.iter().position(|choice| choice.trim() == text);
    let letter = || match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => within(usize::from(letter.to_ascii_uppercase() - b'A')),
        _ => None,
    };
    of_text().or_else(letter).or_else(|| within(text.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches an index from 1, a letter that is taken before the text of a choice, and an answer outside the choices.
    #[test]
    fn an_answer_is_an_index_a_label_a_text_or_a_letter() {
        let choices = ["Paris", "Rome", "B"].map(str::to_owned);
        let labels = ["1", "2", "3"].map(str::to_owned);
        let of = |answer: Value| right(&answer, &choices, None);
        assert_eq!(
            [of(json!(0)), of(json!(2)), of(json!(3)), of(json!(-1)), of(json!(0.5))],
            [Some(0), Some(2), None, None, None]
        );
        assert_eq!([of(json!("Rome")), of(json!(" A ")), of(json!("b"))], [Some(1), Some(0), Some(1)]);
        assert_eq!(of(json!("B")), Some(2), "a choice's own text");
        assert_eq!([of(json!("1")), of(json!("7")), of(json!("Madrid")), of(json!(true))], [Some(1), None, None, None]);
        for (answer, at) in [(json!("1"), 0), (json!(3), 2), (json!("Rome"), 1)] {
            assert_eq!(right(&answer, &choices, Some(&labels)), Some(at), "{answer} with labels");
        }
        let letters = ["A", "B", "C"].map(str::to_owned);
        assert_eq!(right(&json!(0), &choices, Some(&letters)), Some(0), "an index");
        let numbers = ["4", "5", "6"].map(str::to_owned);
        assert_eq!(right(&json!("5"), &numbers, Some(&labels)), Some(1), "the text of a choice");
        assert_eq!([json!(0), json!("0")].map(|answer| right(&answer, &choices, Some(&labels))), [None, None]);
        let row = |label: Value| Row {
            place: crate::data::place::Place { file: "f".into(), line: 1 },
            parts: Default::default(),
            columns: [
                (CHOICES.to_owned(), json!({"text": ["a", "b", "c"], "label": label})),
                (ANSWER.to_owned(), json!("3")),
            ]
            .into_iter()
            .collect(),
            segments: Vec::new(),
        };
        assert_eq!(question(&row(json!([1, 2, 3]))).unwrap().right, 2, "labels that are numbers");
        assert!(question(&row(json!([1, 2.5, 3]))).is_err());
    }

    /// Catches a tie that goes to the last choice.
    #[test]
    fn the_first_of_equal_choices_counts() {
        assert_eq!(best(&[-2.0, -1.0, -1.0]), 1);
        assert_eq!(best(&[-1.0]), 0);
    }
}
