//! `[data]`: each source has its own keys, and refuses those of other sources.

use crate::config::experiment::*;
use crate::config::schema::TASKS;
use crate::config::written;
use crate::keys::notes::Notes;

/// `[data]`.
pub fn data(written: written::Data, notes: &mut Notes<'_>) -> Data {
    match written.source.as_deref() {
        Some("synthetic") => synthetic(written, notes),
        Some("jsonl") => jsonl(written, notes),
        _ => text(written, notes),
    }
}

/// Checks that the longest row is not longer than the model's context, if that is known. Returns the length of the
/// longest sequence, as far as it is known.
pub fn check_max_length(data: &Data, context: Option<usize>, notes: &mut Notes<'_>) -> Option<usize> {
    let Some(max_length) = data.source().writing().max_length else { return context };
    if let Some(context) = context.filter(|context| max_length > *context) {
        notes
            .refuse("data.max_length", format!("{max_length} tokens are longer than the model's context of {context}"));
    }
    context.map(|context| context.min(max_length))
}

fn synthetic(written: written::Data, notes: &mut Notes<'_>) -> Data {
    notes.unused("data.path", &written.path, "source = \"synthetic\" generates its data");
    let why = "source = \"synthetic\" holds out a tenth of its texts by itself";
    notes.unused("data.eval_path", &written.eval_path, why);
    notes.unused("data.held_out", &written.held_out, why);
    only_for_rows(&written, "synthetic", notes);
    let chosen = written.tasks.unwrap_or_else(|| TASKS.iter().map(|task| task.to_string()).collect());
    let in_order = TASKS.iter().filter(|task| chosen.iter().any(|name| name == *task));
    let rows = written.rows.unwrap_or(20_000);
    Data::Synthetic(Synthetic {
        rows,
        held_out_rows: written.held_out_rows.unwrap_or((rows / 10).max(1)),
        tasks: in_order.map(|task| task.to_string()).collect(),
        equal_length: written.equal_length.unwrap_or(false),
        flawed: written.flawed.unwrap_or(0.0),
    })
}

fn text(written: written::Data, notes: &mut Notes<'_>) -> Data {
    if !notes.reported("data.source") {
        files(&written, "text", "corpus/*.txt", notes);
        only_for_rows(&written, "text", notes);
    }
    let held_out = held_out(written.held_out, written.eval_path, None, notes);
    Data::Text(Text { path: written.path.unwrap_or_default(), held_out })
}

fn jsonl(written: written::Data, notes: &mut Notes<'_>) -> Data {
    files(&written, "jsonl", "rows.jsonl", notes);
    for (key, there) in [("eval_path", written.eval_path.is_some()), ("split_column", written.split_column.is_some())] {
        let why = format!("data.{key} says which rows are held out; remove it or data.group_column");
        notes.unused("data.group_column", &written.group_column.as_ref().filter(|_| there), &why);
    }
    Data::Jsonl(Jsonl {
        held_out: held_out(written.held_out, written.eval_path, written.split_column, notes),
        path: written.path.unwrap_or_default(),
        group_column: written.group_column,
        chat_template: written.chat_template,
        max_length: written.max_length,
        truncation: written.truncation,
        columns: columns(written.columns, notes),
    })
}

/// Refuses two columns that come from the same one.
fn columns(written: Option<Columns>, notes: &mut Notes<'_>) -> Columns {
    let columns = written.unwrap_or_default();
    for (name, from) in &columns {
        if let Some((other, _)) = columns.iter().find(|(other, also)| *other < name && *also == from) {
            notes.refuse(&format!("data.columns.{name}"), format!("\"{from}\" is data.columns.{other} already"));
        }
    }
    columns
}

/// Refuses keys that only the synthetic source has, and requires `data.path`.
fn files(written: &written::Data, source: &str, example: &str, notes: &mut Notes<'_>) {
    let why = format!("only source = \"synthetic\" generates data, and source is \"{source}\"");
    notes.unused("data.rows", &written.rows, &why);
    notes.unused("data.held_out_rows", &written.held_out_rows, &why);
    notes.unused("data.tasks", &written.tasks, &why);
    notes.unused("data.equal_length", &written.equal_length, &why);
    notes.unused("data.flawed", &written.flawed, &why);
    if written.path.is_none() {
        notes.missing("data.path", &format!("source = \"{source}\" reads it; for example path = \"{example}\""));
    }
}

fn only_for_rows(written: &written::Data, source: &str, notes: &mut Notes<'_>) {
    let why = format!("only source = \"jsonl\" reads it, and source is \"{source}\"");
    notes.unused("data.split_column", &written.split_column, &why);
    notes.unused("data.group_column", &written.group_column, &why);
    notes.unused("data.chat_template", &written.chat_template, &why);
    notes.unused("data.max_length", &written.max_length, &why);
    notes.unused("data.truncation", &written.truncation, &why);
    notes.unused("data.columns", &written.columns, &why);
}

fn held_out(
    fraction: Option<f64>,
    eval_path: Option<Vec<String>>,
    split_column: Option<String>,
    notes: &mut Notes<'_>,
) -> HeldOut {
    if fraction.is_some() && eval_path.is_some() {
        notes.refuse(
            "data.held_out",
            "contradicts data.eval_path: give the files to evaluate on, or a fraction to hold out",
        );
    }
    if split_column.is_some() {
        let why = "contradicts data.split_column, which says what is held out: give one of them";
        for (key, there) in [("data.held_out", fraction.is_some()), ("data.eval_path", eval_path.is_some())] {
            if there {
                notes.refuse(key, why);
            }
        }
    }
    match (eval_path, split_column) {
        (Some(eval_path), _) => HeldOut::Files { eval_path },
        (None, Some(split_column)) => HeldOut::Column { split_column },
        (None, None) => HeldOut::Fraction { held_out: fraction.unwrap_or(0.1) },
    }
}
