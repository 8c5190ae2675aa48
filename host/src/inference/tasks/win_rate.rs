//! Win rate: which of two files of answers to the same prompts a reward model prefers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    answer_rows::{Answered, ENDED, answered},
    spread::mean,
};
use crate::{
    data::{
        DataError,
        batches::{batcher::eval_sequences, pack::pack},
        rows::{
            Columns, Content, Part, Row, RowCorpus, RowKind, RowOptions,
            columns::NamedBy,
            encode::{Encoder, Reads},
            kind::LABEL,
        },
    },
    decimals::counted,
    error::{Error, Result},
    inference::{
        saved_model::{EVAL_TOKENS, Opened},
        templates::layout,
    },
    model::Keep,
    objectives::micro_batch::{at_ends, view},
};

/// Two files of answers to the same prompts, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnswersToCompare {
    /// The answers whose win rate is measured.
    pub first: String,
    /// The answers that they are compared with.
    pub second: String,
    /// `plain`, `tokenizer`, `tokenizer:NAME` or a template's file; `None`: messages use the tokenizer's template, plain texts none.
    pub chat_template: Option<String>,
}

/// Results of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WinFigures {
    /// Share of comparisons that the first answers win; a tie counts half. Several answers to a prompt count as one, by their
    /// mean.
    pub win_rate: f64,
    /// Its standard error, over prompts.
    pub win_rate_stderr: Option<f64>,
    /// Comparisons that the first answers win.
    pub wins: usize,
    /// Comparisons that they lose.
    pub losses: usize,
    /// Comparisons of answers with equal scores.
    pub ties: usize,
    /// Mean score of the first answers, over prompts.
    pub score: f64,
    /// Mean score of the second answers, over prompts.
    pub other_score: f64,
    /// Mean difference of the scores.
    pub difference: f64,
    /// Its standard error, over prompts.
    pub difference_stderr: Option<f64>,
    /// Prompts.
    pub prompts: usize,
    /// Pairs of answers that were left out, because one of them is too long for the reward model.
    pub too_long: usize,
    /// Pairs of answers that were left out, because one of them is empty and was cut off: it has no token to score.
    pub empty: usize,
    /// Pairs that were left out, because a prompt was too long to be answered.
    pub unanswered: usize,
    /// A line for each pair of answers.
    #[serde(skip)]
    pub lines: Vec<Value>,
}

impl Opened {
    /// Compares two files of answers by the scores of this reward model; see [`Opened::open_reward_model`].
    ///
    /// # Errors
    /// Answers to different prompts; errors of the backend.
    pub fn compare_answers(&self, wanted: &AnswersToCompare) -> Result<WinFigures> {
        let (first, second) = (read(&wanted.first)?, read(&wanted.second)?);
        check_prompts(wanted, &first, &second)?;
        let read = first.len();
        let answered = first.into_iter().zip(second).filter(|(row, other)| row.is_answered && other.is_answered);
        let (first, second): (Vec<Row>, Vec<Row>) = answered.map(|(row, other)| (row.row, other.row)).unzip();
        let scores = self.answer_scores(&wanted.first, first.clone(), wanted)?;
        let others = self.answer_scores(&wanted.second, second.clone(), wanted)?;
        let mut figures = WinFigures {
            win_rate: f64::NAN,
            win_rate_stderr: None,
            wins: 0,
            losses: 0,
            ties: 0,
            score: f64::NAN,
            other_score: f64::NAN,
            difference: f64::NAN,
            difference_stderr: None,
            prompts: 0,
            too_long: 0,
            empty: 0,
            unanswered: 0,
            lines: Vec::new(),
        };
        figures.unanswered = read - first.len();
        // By prompt: wins, scores and other scores of its answers.
        let mut by_prompt: BTreeMap<String, [Vec<f64>; 3]> = BTreeMap::new();
        for (number, (row, other_row)) in (0..).zip(first.iter().zip(&second)) {
            let (Some(score), Some(other)) = (scores.get(&number), others.get(&number)) else {
                let empty = [(&scores, row), (&others, other_row)]
                    .iter()
                    .any(|(scores, row)| !scores.contains_key(&number) && is_empty(row));
                figures.empty += usize::from(empty);
                figures.too_long += usize::from(!empty);
                continue;
            };
            let win = match score.total_cmp(other) {
                _ if score == other => 0.5,
                std::cmp::Ordering::Greater => 1.0,
                _ => 0.0,
            };
            figures.wins += usize::from(win == 1.0);
            figures.losses += usize::from(win == 0.0);
            figures.ties += usize::from(win == 0.5);
            let of_prompt = by_prompt.entry(row.text().prompt).or_default();
            of_prompt.iter_mut().zip([win, *score, *other]).for_each(|(all, value)| all.push(value));
            let answer = |row: &Row| row.text().answer.unwrap_or_default();
            figures.lines.push(json!({
                "prompt": row.text().prompt,
                "answer": answer(row),
                "other_answer": answer(other_row),
                "score": score,
                "other_score": other,
                "win": win,
            }));
        }
        if by_prompt.is_empty() {
            let WinFigures { too_long, empty, unanswered, .. } = figures;
            let pairs = |count| counted(count, "pair");
            let what = format!(
                "no pair of answers can be compared by {}: left out: {} too long for it, {} with an answer that is empty \
                 and was cut off, and {} with a prompt that was too long to be answered",
                self.folder.display(),
                pairs(too_long),
                pairs(empty),
                pairs(unanswered)
            );
            let hint = match too_long.max(empty).max(unanswered) {
                most if most == unanswered => "shorten the prompts",
                most if most == empty => "allow longer answers: telos generate --max-tokens",
                _ => "allow only shorter answers: telos generate --max-tokens",
            };
            return Err(Error::request(what).with_hint(hint));
        }
        let of = |what: usize| by_prompt.values().map(|all| mean(&all[what]).0).collect::<Vec<_>>();
        let (scores, others) = (of(1), of(2));
        (figures.win_rate, figures.win_rate_stderr) = mean(&of(0));
        (figures.score, figures.other_score) = (mean(&scores).0, mean(&others).0);
        let differences: Vec<f64> = scores.iter().zip(&others).map(|(score, other)| score - other).collect();
        (figures.difference, figures.difference_stderr) = mean(&differences);
        figures.prompts = by_prompt.len();
        Ok(figures)
    }

    /// Returns the score of each row's answer, by the row's number; without those of rows that are too long.
    fn answer_scores(&self, name: &str, mut rows: Vec<Row>, wanted: &AnswersToCompare) -> Result<BTreeMap<u64, f64>> {
        let layout = layout(&self.tokenizer, wanted.chat_template.as_deref(), rows.iter().any(Row::has_messages))?;
        for row in &mut rows {
            // Only the mark of an answer that was cut off counts here. The label belongs to this kind of rows.
            row.columns.retain(|column, _| column == ENDED);
            row.columns.insert(LABEL.to_owned(), 1.into());
        }
        let corpus = RowCorpus::of(name.to_owned(), RowKind::Unpaired, rows)?;
        let context = self.model.config().context as usize;
        // A score is computed at the last token.
        let reads = Reads { last: true, ..Reads::default() };
        let encoder = Encoder { reads, ..Encoder::new(&self.tokenizer, &layout, context) };
        let data = match encoder.encode(&corpus) {
            Err(DataError::NoRowLeft { .. }) => return Ok(BTreeMap::new()),
            data => data?,
        };
        let mut scores = BTreeMap::new();
        let tokens = EVAL_TOKENS.max(context);
        for mut sequences in eval_sequences(&*data.train, context, self.tokenizer.prefix(), tokens, None) {
            sequences.iter_mut().for_each(|sequence| sequence.reads_last = true);
            let packed = pack(&sequences)?;
            let forward = self.model.forward(view(&packed), Keep::Nothing)?;
            scores.extend(packed.rows.iter().copied().zip(at_ends(&packed, &self.model.scalars(&forward)?)));
        }
        if let Some((row, score)) = scores.iter().find(|(_, score)| !score.is_finite()) {
            return Err(Error::run(format!("{name}: the score of answer {} is {score}", row + 1)));
        }
        Ok(scores)
    }
}

/// A row of a file of answers.
struct AnswerRow {
    row: Row,
    /// Whether it has an answer: a prompt may have been too long for one.
    is_answered: bool,
}

/// Whether an answer is empty and was cut off, so that it adds no token to its prompt.
fn is_empty(row: &Row) -> bool {
    let text = row.text().answer.unwrap_or_default();
    let ended = row.columns.get(ENDED);
    let is_cut = ended.is_some_and(|ended| ended == &Value::Bool(false) || ended.as_f64() == Some(0.0));
    text.trim().is_empty() && is_cut
}

fn read(path: &str) -> Result<Vec<AnswerRow>> {
    let read = |kind| {
        let options = RowOptions::all(vec![path.to_owned()], Columns::new());
        RowOptions { named_by: Some(NamedBy::File), ..options }.read(kind)
    };
    let error = match read(RowKind::PromptCompletion) {
        Ok(corpus) => return with_completions(corpus),
        Err(error) => error,
    };
    // Rows without a completion are prompts with columns.
    let Ok(corpus) = read(RowKind::Prompt) else { return Err(error.into()) };
    let has_completions = corpus.train.survey().has(Part::Completion.name());
    let mut rows = Vec::new();
    for row in corpus.train.iter() {
        let row = row?;
        rows.push(match answered(row.clone()) {
            Answered::With(row) => AnswerRow { row, is_answered: true },
            Answered::TooLong => AnswerRow { row, is_answered: false },
            Answered::Without if has_completions => return Err(error.into()),
            Answered::Without => return Err(no_answer(&row)),
        });
    }
    // Rows with a completion each are read as such, or refused.
    if has_completions && rows.iter().all(|row| row.is_answered) { Err(error.into()) } else { Ok(rows) }
}

fn with_completions(corpus: RowCorpus) -> Result<Vec<AnswerRow>> {
    let rows = corpus.train.iter().map(|row| {
        let row = row?;
        match row.parts.get(&Part::Completion) {
            Some(Content::Text(_) | Content::Messages(_)) => Ok(AnswerRow { row, is_answered: true }),
            None => Err(no_answer(&row)),
        }
    });
    rows.collect()
}

fn no_answer(row: &Row) -> Error {
    let what = "expected a prompt with a completion, as `telos generate --prompts` writes them, or with an answer and what was \
                expected, as `telos eval --rows --out` does"
        .to_owned();
    DataError::Json { place: row.place.clone(), key: "completion".into(), what }.into()
}

/// Checks that both files answer the same prompts in the same order.
fn check_prompts(wanted: &AnswersToCompare, first: &[AnswerRow], second: &[AnswerRow]) -> Result<()> {
    let hint = "answer the same prompts with both models: telos generate MODEL --prompts FILE --out ANSWERS";
    let mut both = first.iter().zip(second).map(|(one, other)| (&one.row, &other.row));
    let differ = |row: &Row, other: &Row| {
        row.text().prompt != other.text().prompt || is_conversation(row) != is_conversation(other)
    };
    if let Some((row, other)) = both.find(|(row, other)| differ(row, other)) {
        let why = match is_conversation(row) == is_conversation(other) {
            true => "",
            false => ": one is a conversation, the other a text",
        };
        let what = format!("{} and {}: the answers are to different prompts{why}", row.place, other.place);
        return Err(Error::request(what).with_hint(hint));
    }
    if first.len() != second.len() {
        let what = format!("{} has {} answers, and {} has {}", wanted.first, first.len(), wanted.second, second.len());
        return Err(Error::request(what).with_hint(hint));
    }
    Ok(())
}

/// Whether a prompt is a list of messages, which a chat template writes.
fn is_conversation(row: &Row) -> bool {
    matches!(row.parts.get(&Part::Prompt), Some(Content::Messages(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches prompts without an answer that are refused or compared, and an evaluated answer that is not read.
    #[test]
    fn a_file_of_answers_is_one_of_generate_or_of_eval() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let answers = |lines: &[Value]| {
            std::fs::write(&path, lines.iter().map(|line| line.to_string() + "\n").collect::<String>()).unwrap();
            read(path.to_str().unwrap())
        };
        let answer = |row: &AnswerRow| row.is_answered.then(|| row.row.text().answer.unwrap());
        let long = json!({"prompt": "q", "completion": null, "completion_ended": false, "finish": "prompt too long"});
        let short = json!({"prompt": "p", "completion": "c", "completion_ended": true, "finish": "end of sequence"});
        let found = answers(&[short.clone(), long]).unwrap();
        assert_eq!(found.iter().map(answer).collect::<Vec<_>>(), [Some("c".to_owned()), None]);
        let evaluated = json!({"prompt": "p", "answer": "a", "expected": "e", "finish": "end of sequence"});
        assert_eq!(answers(&[evaluated]).unwrap().iter().map(answer).collect::<Vec<_>>(), [Some("a".to_owned())]);
        let error = answers(&[short, json!({"prompt": "p", "answer": "gold"})]).err().unwrap();
        assert!(error.message().contains("a.jsonl:2") || error.report().contains("a.jsonl:2"), "{error:?}");
    }

    /// Catches an empty answer that is called too long, and one that ended: its end has a score.
    #[test]
    fn an_empty_answer_that_was_cut_off_has_nothing_to_score() {
        let row = |completion: &str, ended: bool| {
            let line = json!({"prompt": "p", "completion": completion, "completion_ended": ended}).to_string();
            let kind = RowKind::PromptCompletion;
            let rows = crate::data::rows::jsonl::parse("r.jsonl".as_ref(), &line, kind, &Columns::default());
            rows.unwrap().remove(0)
        };
        assert_eq!(
            [row("", false), row(" \n", false), row("", true), row("x", false)].map(|row| is_empty(&row)),
            [true, true, false, false]
        );
    }
}
