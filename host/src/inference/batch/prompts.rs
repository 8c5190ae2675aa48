//! Reads the prompts of a file: rows with a prompt, or conversations up to their last answer; and turns them into tokens.

use chrono::{NaiveDate, NaiveTime};
use serde_json::{Map, Value, json};

use super::request::{PromptsToAnswer, REFERENCE};
use crate::{
    data::{
        DataError, Source,
        rows::{
            ASSISTANT, Columns, Content, Part, Row, RowCorpus, RowKind, RowOptions, role,
            write::{layout::RowLayout, template::NOW},
        },
    },
    error::{Error, Result},
    inference::{saved_model::Opened, templates::layout},
};

/// A prompt to answer.
pub(super) struct Prompt {
    /// Its row: the prompt and its columns.
    pub(super) row: Map<String, Value>,
    /// Whether its row holds messages, so that the answer is a message too.
    pub(super) is_chat: bool,
    /// Whether a chat template wrote it.
    pub(super) is_templated: bool,
    /// Its tokens.
    pub(super) ids: Vec<i32>,
}

/// Prompts, the files that they come from, and the chat template that wrote them, if one did.
pub(super) struct Read {
    pub(super) prompts: Vec<Prompt>,
    pub(super) sources: Value,
    pub(super) template: Option<String>,
    /// The date that the template prints, if it does.
    pub(super) date: Option<NaiveDate>,
}

/// Reads and tokenises the prompts. If a template writes them, generation ends where it ends a turn, and a date that it prints is
/// `date`.
///
/// # Errors
/// Files that cannot be read; a row without a prompt, with file and line; a template that fails.
pub(super) fn read(opened: &mut Opened, wanted: &PromptsToAnswer, date: NaiveDate) -> Result<Read> {
    let (rows, sources) = read_rows(&wanted.paths, &wanted.columns)?;
    let layout = layout(&opened.tokenizer, wanted.chat_template.as_deref(), rows.iter().any(Row::has_messages))?;
    let layout = RowLayout { template: layout.template.at(date.and_time(NaiveTime::MIN)), ..layout };
    let is_templated = rows.iter().any(|row| layout.templates(row));
    if is_templated {
        opened.end_turns_of(&layout.template)?;
    }
    let texts = rows.iter().map(|row| Ok(layout.lay_out(row, Part::Prompt)?.text)).collect::<Result<Vec<String>>>()?;
    let placed = opened.tokenizer.encode_placed(texts.iter().map(String::as_str).collect())?;
    let mut prompts = Vec::with_capacity(rows.len());
    for (row, mut tokens) in rows.into_iter().zip(placed) {
        let refuse = |what: String| DataError::Json { place: row.place.clone(), key: "prompt".into(), what };
        opened.tokenizer.within_model(&tokens.ids).map_err(|error| refuse(error.to_string()))?;
        let is_templated = layout.templates(&row);
        if let Some(prefix) = opened.tokenizer.prefix().filter(|_| !is_templated)
            && tokens.ids.first() != Some(&prefix)
        {
            tokens.ids.insert(0, prefix);
        }
        if tokens.ids.is_empty() {
            return Err(refuse("it has no token, so that there is nothing to continue".to_owned()).into());
        }
        prompts.push(Prompt {
            is_chat: row.has_messages(),
            is_templated,
            ids: tokens.ids.into_iter().map(|id| id as i32).collect(),
            row: row.text().written,
        });
    }
    let source = |source: &Source| json!({"bytes": source.bytes, "sha256": source.sha256});
    let sources = sources.iter().map(source).collect();
    let date = Some(date).filter(|_| is_templated && layout.template.mentions(NOW));
    Ok(Read { prompts, sources, date, template: is_templated.then(|| layout.template.source().to_owned()) })
}

/// How the refusal of a prompt that ends with an answer begins.
const ENDS: &str = "ends with the role";

/// Reads rows as prompts: those with a prompt, and those with whole conversations, whose last answer becomes the column
/// [`REFERENCE`].
///
/// # Errors
/// Rows that are neither, with file and line.
fn read_rows(paths: &[String], columns: &Columns) -> Result<(Vec<Row>, Vec<Source>)> {
    let options = |columns: Columns| RowOptions::all(paths.to_vec(), columns);
    let name = paths.join(", ");
    let error = match options(columns.clone()).read(RowKind::Prompt) {
        Ok(corpus) => return taken(corpus),
        Err(DataError::Empty(_) | DataError::NoRow { .. }) => {
            return Err(Error::request(format!("{name}: there is no prompt"))
                .with_hint("give a file with a row in each line: {\"prompt\": ...} or {\"messages\": [...]}"));
        }
        Err(error @ DataError::Json { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    let without_answer = match options(columns.clone()).read(RowKind::PromptCompletion) {
        Ok(corpus) => {
            let (mut rows, sources) = taken(corpus)?;
            rows.iter_mut().try_for_each(open_conversation)?;
            return Ok((rows, sources));
        }
        Err(error) => error,
    };
    let mut columns = columns.clone();
    let has_messages = columns.values().all(|written| written != Part::Messages.name());
    if has_messages && columns.insert(Part::Prompt.name().to_owned(), Part::Messages.name().to_owned()).is_none() {
        match options(columns).read(RowKind::Prompt) {
            Ok(corpus) => return taken(corpus),
            // One conversation has no answer, and another one ends with one.
            Err(DataError::Json { place, key, what }) if key == Part::Prompt.name() && what.starts_with(ENDS) => {
                if let DataError::Json { place: other, key, .. } = &without_answer
                    && key == Part::Messages.name()
                {
                    let what = format!("this conversation ends with an answer, and that of {other} has none");
                    return Err(Error::from(DataError::Json { place, key: key.clone(), what })
                        .with_hint("give all conversations an answer or none: split the file in two"));
                }
                return Err(DataError::Json { place, key: Part::Messages.name().to_owned(), what }.into());
            }
            // An error about a message itself, whose key is `prompt[0].role`, for example.
            Err(DataError::Json { place, key, what }) if key.starts_with(Part::Prompt.name()) => {
                let key = key.replacen(Part::Prompt.name(), Part::Messages.name(), 1);
                return Err(DataError::Json { place, key, what }.into());
            }
            Err(_) => {}
        }
    }
    Err(error.into())
}

/// The rows of a corpus and their files.
fn taken(corpus: RowCorpus) -> Result<(Vec<Row>, Vec<Source>)> {
    let rows = corpus.train.iter().collect::<Result<Vec<_>, _>>()?;
    Ok((rows, corpus.sources))
}

/// Makes the answer that a row has a column.
///
/// # Errors
/// The row has a column of this name.
fn keep_answer(row: &mut Row, answer: Value) -> Result<()> {
    if row.columns.get(REFERENCE).is_some_and(|own| !own.is_null()) {
        let what = "this column would be replaced by the row's answer; rename it".to_owned();
        return Err(DataError::Json { place: row.place.clone(), key: REFERENCE.to_owned(), what }.into());
    }
    row.columns.insert(REFERENCE.to_owned(), answer);
    Ok(())
}

/// Turns a conversation into a prompt: its last answer, if it ends with one, becomes a column.
///
/// # Errors
/// A conversation that is only an answer; a column of the name that the answer gets.
fn open_conversation(row: &mut Row) -> Result<()> {
    let Some(Content::Messages(mut messages)) = row.parts.remove(&Part::Messages) else {
        // The completion of a prompt.
        let completion = row.parts.remove(&Part::Completion).map(|content| match content {
            Content::Text(text) => text.into(),
            Content::Messages(messages) => messages.into_iter().map(Value::Object).collect(),
        });
        return completion.map_or(Ok(()), |completion| keep_answer(row, completion));
    };
    if messages.last().is_some_and(|last| role(last) == ASSISTANT)
        && let Some(answer) = messages.pop()
    {
        keep_answer(row, json!([answer]))?;
    }
    if messages.is_empty() {
        let what = "no message before the answer, so that there is nothing to answer".to_owned();
        return Err(DataError::Json { place: row.place.clone(), key: Part::Messages.name().to_owned(), what }.into());
    }
    row.parts.insert(Part::Prompt, Content::Messages(messages));
    Ok(())
}
