//! What the columns of a row may hold that have a meaning here.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::data::reading::format::record::Unreadable;
use crate::data::rows::columns::Columns;
use crate::data::rows::kind::{ANSWER, LABEL, MARGIN, OF_FORMATS, Part, RowKind, Shape};
use crate::data::rows::message::{ASSISTANT, role};
use crate::data::rows::read::refusal::what;
use crate::data::rows::row::Content;
use crate::data::rows::text::number;
use crate::data::rows::write::template::KWARGS;

type Object = serde_json::Map<String, Value>;

/// Checks that every value that a row is read from could be read. `columns` are the others, already renamed by `names`.
///
/// # Errors
/// The first such value that could not.
pub fn check_readable(
    columns: &Object,
    unreadable: &[Unreadable],
    kind: RowKind,
    shapes: &[Shape],
    names: &Columns,
) -> Result<(), Unreadable> {
    let key = |column: &str| match names.iter().find(|(_, written)| *written == column) {
        Some((key, _)) => Some(key.clone()),
        // Another column has its name.
        None => (!names.contains_key(column)).then(|| column.to_owned()),
    };
    let keys: Vec<(Option<String>, &Unreadable)> = unreadable.iter().map(|value| (key(&value.column), value)).collect();
    let is_unreadable = |name: &str| keys.iter().any(|(key, _)| key.as_deref() == Some(name));
    let there = |name: &str| columns.get(name).is_some_and(|value| !value.is_null()) || is_unreadable(name);
    let shape = shapes.iter().find(|shape| shape.iter().all(|part| there(part.name())));
    let additional: &[&str] = match kind {
        RowKind::PromptCompletion => &["completion_ended"],
        RowKind::Preference => &[MARGIN, "chosen_ended", "rejected_ended"],
        RowKind::Unpaired => &[LABEL, "completion_ended"],
        RowKind::Prompt => &[ANSWER],
    };
    let is_read = |name: &str| {
        let is_part = match shape {
            Some(shape) => shape.iter().any(|part| part.name() == name),
            None => OF_FORMATS.contains(&name),
        };
        is_part || additional.contains(&name) || ["tools", "documents", KWARGS].contains(&name)
    };
    match keys.into_iter().find(|(key, _)| key.as_deref().is_some_and(is_read)) {
        Some((_, value)) => Err(value.clone()),
        None => Ok(()),
    }
}

/// Checks that a prompt ends before the answer.
pub fn check_open(parts: &BTreeMap<Part, Content>) -> Result<(), String> {
    match parts.get(&Part::Prompt) {
        Some(Content::Messages(messages)) if messages.last().is_some_and(|last| role(last) == ASSISTANT) => {
            Err(format!("ends with the role \"{ASSISTANT}\": a prompt ends before the answer"))
        }
        _ => Ok(()),
    }
}

/// Checks that a margin is a number.
pub fn check_margin(margin: Option<&Value>) -> Result<(), String> {
    match margin {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value.is_number() && number(value).is_some() => Ok(()),
        Some(other) => Err(format!("expected a number, found {other}")),
    }
}

/// Turns SQuAD's answers, `{"text": [...], "answer_start": [...]}`, into the list of their texts; the positions are
/// not used.
pub fn normalize_answer(columns: &mut Object) {
    if let Some(answer) = columns.get_mut(ANSWER)
        && let Value::Object(object) = &*answer
        && object.keys().all(|key| key == "text" || key == "answer_start")
        && let Some(texts) = object.get("text").filter(|texts| texts.is_array() || texts.is_string()).cloned()
    {
        *answer = texts;
    }
}

/// Checks that a right answer is a string or a number, or a list of several right answers.
pub fn check_answer(answer: Option<&Value>) -> Result<(), String> {
    let wanted = "a right answer is a string or a number, or a list of several, of which any counts; give other values another \
                  key, or write them as strings";
    match answer {
        Some(Value::Bool(truth)) => {
            Err(format!("expected a right answer, found {truth}: write the word that the model should answer, such as \"{truth}\" \
                         or \"yes\"; give other values another key"))
        }
        Some(Value::String(text)) if is_list_of_texts(text) => Err(
            "a list within a string; write several right answers as a list: jq -c '.answer |= fromjson' converts it (Python's \
             notation: ast.literal_eval and json.dumps); if the brackets are part of a single answer, put the string into a list: \
             jq -c '.answer |= [.]'; give other values another key"
                .to_owned(),
        ),
        Some(Value::Array(list)) if list.is_empty() => {
            Err("an empty list, so that no answer would be right; remove the row, or give [\"\"] if the right answer is \
                 empty".into())
        }
        Some(Value::Array(list)) => {
            let other = list.iter().enumerate().find(|(_, value)| !value.is_string() && !value.is_number());
            other.map_or(Ok(()), |(index, value)| Err(format!("{} at place {index} of the list; {wanted}", what(value))))
        }
        Some(value @ Value::Object(_)) => Err(format!("{}; {wanted}", what(value))),
        _ => Ok(()),
    }
}

/// Whether a string is a list of strings in JSON or Python notation.
fn is_list_of_texts(text: &str) -> bool {
    let text = text.trim();
    let is_python = text.starts_with("['") && text.ends_with("']");
    is_python
        || text.starts_with('[')
            && serde_json::from_str::<Vec<Value>>(text).is_ok_and(|list| list.iter().any(Value::is_string))
}

/// Checks that a label says whether the answer is desirable.
pub fn check_label(label: Option<&Value>) -> Result<(), String> {
    match label {
        Some(label) if number(label).is_some_and(|number| number == 0.0 || number == 1.0) => Ok(()),
        Some(label) => Err(format!("expected true, false, 1 or 0, found {label}")),
        None => Err("missing; expected true, false, 1 or 0: whether the answer is desirable".into()),
    }
}
