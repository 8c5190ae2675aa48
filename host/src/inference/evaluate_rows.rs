//! Evaluates rows outside of a run: the loss of their completions, exact match of greedy answers, and scores by a reward.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{
    data::{
        DataError,
        rows::{Columns, Part, RowCorpus, RowCounts, RowKind, RowOptions, RowText, encode::Encoder, kind::ANSWER},
    },
    error::{Error, Result},
    inference::{
        saved_model::Opened,
        tasks::{
            answer_rows::{Answered, answered},
            checked::{Check, CheckedFigures, Checker},
            spread::{mean, ratio},
        },
        templates::layout,
    },
    train::eval::{ComparedAnswer, exact_match, prompts::eval_prompts},
};

/// Which rows to evaluate, and how.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowsToEvaluate {
    /// Files, folders or globs; at least one.
    pub paths: Vec<String>,
    /// `plain`, `tokenizer`, `tokenizer:NAME` or a template's file; `None`: messages use the tokenizer's template, plain texts none.
    pub chat_template: Option<String>,
    /// Names of the columns in the files, if they differ.
    pub columns: Columns,
    /// About how many prompts to answer; `None`: all.
    pub generate: Option<u64>,
    /// What follows each segment of an answer that is a list of texts; `None`: a line break.
    pub separator: Option<String>,
    /// A reward that checks the answers; `None`: greedy answers are compared with those of the rows.
    pub check: Option<Check>,
}

/// Results of evaluating a model on rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowFigures {
    /// Nats per token of the completions, including their ends if `ends_counted`; absent if the rows have no completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Its standard error, over rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_stderr: Option<f64>,
    /// Exponential of the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Whether any row's tokens include the one that ends its answer. A template's marks may leave it out.
    #[serde(skip)]
    pub ends_counted: bool,
    /// Share of these tokens that were the most probable token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Its standard error, over rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_accuracy_stderr: Option<f64>,
    /// Number of these tokens.
    pub tokens: u64,
    /// Share of greedy answers that match their rows; absent if none was compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
    /// Its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_match_stderr: Option<f64>,
    /// Answers compared.
    pub answers: usize,
    /// Figures of answers that a reward checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<CheckedFigures>,
    /// How many rows were kept and dropped.
    pub rows: RowCounts,
    /// Rows of `telos generate` that were skipped: their prompt was too long to be answered.
    pub unanswered: usize,
    /// Every compared answer.
    #[serde(skip)]
    pub compared: Vec<ComparedAnswer>,
}

impl RowFigures {
    /// The answers as JSON objects: `prompt`, `answer`, `expected`, `match`, `tokens`, `finish` if they were compared; those of
    /// [`CheckedFigures`] if a reward checked them.
    pub fn answer_lines(&self) -> Vec<Value> {
        match &self.checked {
            Some(checked) => checked.lines.clone(),
            None => exact_match::lines(&self.compared).into_iter().map(Value::Object).collect(),
        }
    }
}

impl Opened {
    /// Measures the loss of rows' completions, and compares greedy answers with them. Rows that are only prompts are answered
    /// and compared with their column `answer`.
    ///
    /// # Errors
    /// Rows that cannot be read, with file and line; rows with nothing to compare or predict; errors of the backend.
    pub fn evaluate_rows(&mut self, wanted: &RowsToEvaluate, checker: Option<&Checker>) -> Result<RowFigures> {
        self.check_predicts()?;
        let mut options = RowOptions::all(wanted.paths.clone(), wanted.columns.clone());
        if let Some(separator) = &wanted.separator {
            options.separator.clone_from(separator);
        }
        let (corpus, unanswered) = read(&options)?;
        if corpus.kind == RowKind::Prompt && wanted.check.is_none() {
            check_answers_known(&corpus)?;
        }
        let layout = layout(&self.tokenizer, wanted.chat_template.as_deref(), corpus.train.survey().with_messages > 0)?;
        let context = self.model.config().context as usize;
        let longest = match corpus.kind {
            // Prompts must keep some tokens even if an answer fills the context.
            RowKind::Prompt => {
                let answer = match &wanted.check {
                    Some(check) => check.sampling.max_tokens,
                    None => self.longest_answer(&corpus)?,
                };
                context - answer.min(context / 2)
            }
            _ => context,
        };
        let encoder = Encoder::new(&self.tokenizer, &layout, longest);
        let mut data = encoder.encode(&corpus).map_err(|error| nothing_left(error, &wanted.paths, longest))?;
        let mut ends_counted = true;
        if let Some(counts) = &mut data.rows {
            // These counts concern training only.
            (ends_counted, counts.no_end_learned) = (!counts.no_end_learned, false);
            counts.other_opening = None;
        }
        let mut figures = RowFigures {
            loss: None,
            loss_stderr: None,
            perplexity: None,
            ends_counted,
            token_accuracy: None,
            token_accuracy_stderr: None,
            tokens: 0,
            exact_match: None,
            exact_match_stderr: None,
            answers: 0,
            checked: None,
            rows: data.rows.clone().unwrap_or_default(),
            unanswered,
            compared: Vec::new(),
        };
        if corpus.kind == RowKind::PromptCompletion {
            // By row: nats, tokens that were the most probable one, tokens.
            let mut rows: BTreeMap<u64, (f64, f64, f64)> = BTreeMap::new();
            self.score_all(&*data.train, &mut |score| {
                let (nats, top, tokens) = rows.entry(score.row).or_default();
                (*nats, *top, *tokens) = (*nats - score.logp, *top + f64::from(u8::from(score.is_top)), *tokens + 1.0);
                figures.tokens += 1;
            })?;
            let (loss, loss_stderr) = ratio(&rows.values().map(|row| (row.0, row.2)).collect::<Vec<_>>());
            let (accuracy, accuracy_stderr) = ratio(&rows.values().map(|row| (row.1, row.2)).collect::<Vec<_>>());
            (figures.loss, figures.loss_stderr, figures.perplexity) = (Some(loss), loss_stderr, Some(loss.exp()));
            (figures.token_accuracy, figures.token_accuracy_stderr) = (Some(accuracy), accuracy_stderr);
        }
        if wanted.generate != Some(0) {
            let prompts = eval_prompts(&*data.train, &self.tokenizer, wanted.generate.unwrap_or(u64::MAX))?;
            // Answers end where the template ends a turn. The losses above are those of training, whose rows end as it learns them.
            if layout.strings || corpus.train.survey().with_messages > 0 {
                self.end_turns_of(&layout.template)?;
            }
            if let Some((check, checker)) = wanted.check.as_ref().zip(checker) {
                if prompts.is_empty() {
                    let what = format!("the rows of {} have no prompt to answer", corpus.name);
                    return Err(Error::request(what)
                        .with_hint("add a column `prompt`, or name it: --column prompt=NAME; without --reward, the loss is measured"));
                }
                let checked = self.check_answers(&*data.train, &prompts, check, checker, &|row| {
                    corpus.train.again(usize::try_from(row).ok()?).map(|row| row.place)
                })?;
                figures.answers = checked.lines.len();
                figures.checked = Some(checked);
            } else {
                let answers = exact_match::greedy(&self.model, &self.tokenizer, &prompts)?;
                let matches = answers.iter().map(|answer| f64::from(u8::from(answer.is_match))).collect::<Vec<_>>();
                figures.exact_match = exact_match::share(&answers);
                figures.exact_match_stderr = mean(&matches).1;
                (figures.answers, figures.compared) = (answers.len(), answers);
            }
        }
        if figures.loss.is_none() && figures.exact_match.is_none() && figures.checked.is_none() {
            let what = format!("the rows of {} have neither a completion nor an answer to compare with", corpus.name);
            return Err(Error::request(what)
                .with_hint("add a column `completion` or `answer`, or name it: --column answer=NAME"));
        }
        Ok(figures)
    }
}

impl Opened {
    /// Returns the number of tokens of the longest correct answer, including its end: the room that a prompt must leave.
    fn longest_answer(&self, corpus: &RowCorpus) -> Result<usize> {
        let mut longest = 1;
        for row in corpus.train.iter() {
            let RowText { answer, more_answers, .. } = row?.text();
            for answer in answer.iter().chain(&more_answers) {
                longest = longest.max(self.tokenizer.encode(answer)?.len() + 1);
            }
        }
        Ok(longest)
    }
}

/// Refuses prompts of which only some have an answer to compare with.
fn check_answers_known(corpus: &RowCorpus) -> Result<()> {
    let (mut known, mut without) = (false, None);
    for row in corpus.train.iter() {
        let row = row?;
        let has_answer = row.text().answer.is_some();
        known |= has_answer;
        if !has_answer && without.is_none() {
            without = Some(row.place);
        }
        if let (true, Some(place)) = (known, &without) {
            let what = "missing, and other rows have one: a greedy answer is compared with it".to_owned();
            return Err(Error::from(DataError::Json { place: place.clone(), key: ANSWER.into(), what })
                .with_hint("give every row an answer, or remove the rows without one"));
        }
    }
    Ok(())
}

/// Reads rows with completions, or prompts with an answer in a column. Also returns how many rows were skipped, because they say
/// that their prompt was too long to be answered.
///
/// # Errors
/// Rows that are neither, with file and line; pairs; no row at all.
fn read(options: &RowOptions) -> Result<(RowCorpus, usize)> {
    let paths = options.paths.join(", ");
    let none = || {
        Error::request(format!("{paths}: there is no row to evaluate"))
            .with_hint("give a file with a row in each line, or a list of rows: {\"prompt\": ..., \"completion\": ...}")
    };
    let error = match options.read(RowKind::PromptCompletion) {
        Ok(corpus) => return Ok((corpus, 0)),
        Err(DataError::Empty(_) | DataError::NoRow { .. }) => return Err(none()),
        Err(error @ DataError::Json { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    if options.read(RowKind::Preference).is_ok() {
        let file = options.paths.first().map_or("ROWS", String::as_str);
        return Err(Error::request(format!("{paths}: the rows are pairs, expected prompts with completions")).with_hint(format!(
            "for the chosen answers: jq -c 'if .prompt then {{prompt, completion: .chosen}} elif (.chosen | type) == \"array\" then {{messages: .chosen}} \
             else {{prompt: \"\", completion: .chosen}} end' {file} > chosen.jsonl, and `--rows chosen.jsonl`; for the rejected ones likewise; the evaluations of a run \
             report how well a model ranks pairs"
        )));
    }
    // Prompts with an answer in a column have no completion. If they cannot be read as prompts either, the first error is
    // reported, unless the second one is about the answers themselves.
    match options.read(RowKind::Prompt) {
        // Some rows have a completion, or null for one: the others lack theirs.
        Ok(corpus) if corpus.train.survey().has(Part::Completion.name()) => {
            answered_rows(&corpus)?.ok_or_else(|| error.into())
        }
        Ok(corpus) => Ok((corpus, 0)),
        Err(of_prompts @ DataError::Json { .. }) if matches!(&of_prompts, DataError::Json { key, .. } if key == ANSWER) => {
            Err(of_prompts.into())
        }
        Err(_) => Err(error.into()),
    }
}

/// Returns the rows with a completion of a file that `telos generate --prompts` wrote, and how many have none; `None` if it did not
/// write the file, if no row has a completion, or if all have one: then they are read as such, or refused.
fn answered_rows(corpus: &RowCorpus) -> Result<Option<(RowCorpus, usize)>> {
    let (mut rows, mut skipped) = (Vec::new(), 0);
    for row in corpus.train.iter() {
        match answered(row?) {
            Answered::With(row) => rows.push(row),
            Answered::TooLong => skipped += 1,
            Answered::Without => return Ok(None),
        }
    }
    if rows.is_empty() || skipped == 0 {
        return Ok(None);
    }
    let of = RowCorpus::of(corpus.name.clone(), RowKind::PromptCompletion, rows)?;
    Ok(Some((RowCorpus { sources: corpus.sources.clone(), ..of }, skipped)))
}

/// Returns the error if every row is dropped: training's message does not apply here.
fn nothing_left(error: DataError, paths: &[String], longest: usize) -> Error {
    let DataError::NoRowLeft { counts, .. } = &error else { return error.into() };
    let paths = paths.join(", ");
    if counts.dropped_too_long > 0 {
        return Error::request(format!(
            "{paths}: no row is short enough: with its answer, each takes more tokens than the model's context length allows ({longest} are \
             left for a row)"
        ))
        .with_hint("shorten the prompts, or evaluate a model with a longer context");
    }
    let counts = counts.to_string();
    let notes = counts.split_once("; ").map_or(String::new(), |(_, notes)| format!(": {notes}"));
    Error::request(format!("{paths}: no row has anything to evaluate{notes}"))
        .with_hint("look at the rows: their answers are empty or marked as not learned")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_lines(lines: &[Value]) -> Result<(RowCorpus, usize)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.jsonl");
        std::fs::write(&path, lines.iter().map(|line| line.to_string() + "\n").collect::<String>()).unwrap();
        read(&RowOptions::all(vec![path.display().to_string()], Columns::new()))
    }

    /// Catches rows that `telos generate` left without an answer and that are refused, and a null that hides a forgotten answer.
    #[test]
    fn prompts_that_were_too_long_are_skipped_and_counted() {
        let answered = json!({"prompt": "p", "completion": "c", "completion_ended": true, "finish": "end of sequence"});
        let long = json!({"prompt": "q", "completion": null, "completion_ended": false, "finish": "prompt too long"});
        let (corpus, skipped) = read_lines(&[answered.clone(), long]).unwrap();
        assert_eq!((corpus.kind, corpus.train.len(), skipped), (RowKind::PromptCompletion, 1, 1));
        assert_eq!(corpus.train.iter().next().unwrap().unwrap().text().answer.as_deref(), Some("c"));
        let error = read_lines(&[answered, json!({"prompt": "q", "completion": null})]).unwrap_err();
        assert!(error.report().contains("r.jsonl:2"), "{error:?}");
    }

    /// Catches a prompt without an answer that is left out of exact match without a word.
    #[test]
    fn either_all_prompts_have_an_answer_or_none() {
        let row = |answer: Value| json!({"prompt": "p", "answer": answer});
        let check = |rows: &[Value]| check_answers_known(&read_lines(rows).unwrap().0);
        for rows in [[row(json!("a")), row(Value::Null)], [row(Value::Null), row(json!(["a", "b"]))]] {
            let at = 1 + rows.iter().position(|row| row["answer"].is_null()).unwrap();
            let report = check(&rows).unwrap_err().report();
            assert!(report.contains(&format!("r.jsonl:{at}")) && report.contains("answer"), "{report}");
        }
        assert!(check(&[row(json!("a")), row(json!(1))]).is_ok());
        assert!(check(&[json!({"prompt": "p"}), json!({"prompt": "q"})]).is_ok());
    }
}
