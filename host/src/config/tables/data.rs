//! `[data]`: each source has its own keys, and refuses those of other sources.

use std::ops::Bound::{Excluded, Included};

use serde::Serialize;

use crate::data::rows::columns::Columns;
use crate::data::rows::truncation::Truncation;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

/// Values of `data.tasks`: the tasks of the synthetic world.
pub const TASKS: &[&str] = &["copy", "reverse", "sort", "count", "add"];

table! {
    /// what is learned from
    pub struct Written at "data": Form::Table, example { path = "corpus.txt" } {
        /// text: UTF-8 files; jsonl: rows, one JSON object a line, of the kind that the first objective learns from:
        /// prompt and completion, or messages; prompt, chosen and rejected (chosen and rejected alone where they are
        /// conversations that begin alike); prompt alone; prompt, completion and label; each a string or a list of
        /// messages, other keys being columns; synthetic: the generated world of small tasks, as running text or as
        /// rows, whichever the objective learns from
        source: String, Form::Word(&["text", "jsonl", "synthetic"]), default "\"text\"", example "text";
        /// text, jsonl: files, folders or globs, relative to the current directory
        path: Vec<String>, Form::Texts, example "corpus/*.txt";
        /// text, jsonl: fraction kept from training for evaluation; of rows, those whose prompt's hash falls into it,
        /// so that a prompt is never on both sides (synthetic data holds out a tenth by itself)
        held_out: f64 = 0.1, Form::Float(Included(0.0), Excluded(1.0)), example 0.1;
        /// text, jsonl: files to evaluate on, instead of held_out; rows with one of their prompts are not trained on
        eval_path: Vec<String>, Form::Texts, example "valid.txt";
        /// jsonl: column that says train, or test, validation, valid, val, dev, eval or held_out, instead of held_out
        split_column: String, Form::Text, example "split";
        /// jsonl: column by whose hash rows are held out, so that rows with the same value stay together
        group_column: String, Form::Text, default "the prompt", example "qid";
        /// jsonl: how rows are written, strings included: "tokenizer" (the tokenizer's own; "tokenizer:NAME" of
        /// several), "plain" (each message on a line, the end of text after the assistant's), a file of Jinja, or
        /// Jinja itself
        chat_template: String, Form::Text,
            default "for messages the tokenizer's own, or \"plain\"; strings are joined as they are",
            example "tokenizer";
        /// jsonl: the most tokens of a row that the model reads (the last token of a completion is only predicted; of
        /// the answers of a pair and of prompts every token counts)
        max_length: usize, Form::Int(1, 1 << 24), default "the model's context", example 512;
        /// jsonl: what becomes of longer rows. right (completions only): their end is cut off; left: the beginning of
        /// their prompt is cut off, of a pair the same on both sides; drop: they are dropped. Rows of which nothing
        /// can be learned any more are dropped and counted
        truncation: Truncation, Form::Word(Truncation::WORDS),
            default "completions: \"right\"; prompts alone: \"left\"; pairs and labelled answers: \"drop\"",
            example "left";
        columns in Option<WrittenColumns>;
        /// synthetic: how many examples are generated
        rows: u64 = 20000, Form::Int(1, 1 << 32), example 20000;
        /// synthetic: how many examples are held out; none of them shares its prompt with one to train on
        held_out_rows: u64, Form::Int(1, 1 << 32), default "a tenth of data.rows", example 400;
        /// synthetic: which tasks
        tasks: Vec<String>, Form::Words(TASKS), default "all", example ["sort", "add"];
        /// synthetic pairs: whether the two answers of every pair are equally long
        equal_length: bool = false, Form::Bool, example true;
        /// synthetic demonstrations: share whose answer is wrong or rambling, as people's are; those held out are
        /// right
        flawed: f64 = 0.0, Form::Float(Included(0.0), Included(1.0)), example 0.25;
    }
}

table! {
    /// jsonl: what the file calls the columns that mean something here; its own column of such a name gives way
    pub struct WrittenColumns at "data.columns": Form::Table, example { prompt = "question" } {
        /// what is asked
        prompt: String, Form::Text, default "\"prompt\"", example "question";
        /// what is to be answered
        completion: String, Form::Text, default "\"completion\"", example "response";
        /// whole conversations
        messages: String, Form::Text, default "\"messages\"", example "conversation";
        /// the better of two answers
        chosen: String, Form::Text, default "\"chosen\"", example "better";
        /// the worse of two answers
        rejected: String, Form::Text, default "\"rejected\"", example "worse";
        /// whether an answer is desirable: true, false, 1 or 0
        label: String, Form::Text, default "\"label\"", example "liked";
        /// the right answer to a prompt, for evaluation and rewards
        answer: String, Form::Text, default "\"answer\"", example "solution";
        /// by how much the chosen answer is better
        margin: String, Form::Text, default "\"margin\"", example "score_gap";
    }
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub enum Data {
    /// UTF-8 files.
    Text {
        /// Files, folders or globs.
        path: Vec<String>,
        /// What to evaluate on.
        #[serde(flatten)]
        held_out: HeldOut,
    },
    /// Rows of JSON lines, of the kind that the first objective requires.
    Jsonl {
        /// Files, folders or globs.
        path: Vec<String>,
        /// What to evaluate on.
        #[serde(flatten)]
        held_out: HeldOut,
        /// The column by whose values whole groups are held out; absent: the prompt.
        #[serde(skip_serializing_if = "Option::is_none")]
        group_column: Option<String>,
        /// "tokenizer", "plain", a file, or Jinja itself; absent: rows of messages use the tokenizer's template, or
        /// plain, and strings are joined unchanged.
        #[serde(skip_serializing_if = "Option::is_none")]
        chat_template: Option<String>,
        /// The most positions of a row; absent: the model's context.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_length: Option<usize>,
        /// How longer rows are truncated; absent: the default of their kind.
        #[serde(skip_serializing_if = "Option::is_none")]
        truncation: Option<Truncation>,
        /// Columns that have other names in the files.
        #[serde(skip_serializing_if = "Columns::is_empty")]
        columns: Columns,
    },
    /// The generated world of small tasks, in which a tenth of the prompts is reserved for held-out examples.
    Synthetic {
        /// How many examples.
        rows: u64,
        /// How many held-out examples.
        held_out_rows: u64,
        /// Which tasks, in the order of [`TASKS`].
        tasks: Vec<String>,
        /// Whether the two answers of every pair have the same length.
        equal_length: bool,
        /// The share of demonstrations whose answer is flawed, from 0 to 1.
        flawed: f64,
    },
}

/// How held-out data is chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum HeldOut {
    /// A fraction of the text or of the prompts, from 0 (nothing) to below 1.
    Fraction {
        /// The fraction.
        held_out: f64,
    },
    /// Separate files.
    Files {
        /// Files, folders or globs.
        eval_path: Vec<String>,
    },
    /// Rows for which a column says so.
    Column {
        /// Its name.
        split_column: String,
    },
}

/// Resolves `[data]`.
pub fn resolve(written: Written, notes: &mut Notes<'_>) -> Data {
    match written.source.as_deref() {
        Some("synthetic") => synthetic(written, notes),
        Some("jsonl") => jsonl(written, notes),
        _ => text(written, notes),
    }
}

/// Checks that the longest row is not longer than the model's context, if that is known. Returns the length of the
/// longest sequence, as far as it is known.
pub fn check_max_length(data: &Data, context: Option<usize>, notes: &mut Notes<'_>) -> Option<usize> {
    let Data::Jsonl { max_length: Some(max_length), .. } = data else { return context };
    if let Some(context) = context.filter(|context| max_length > context) {
        notes
            .refuse("data.max_length", format!("{max_length} tokens are longer than the model's context of {context}"));
    }
    context.map(|context| context.min(*max_length))
}

fn synthetic(written: Written, notes: &mut Notes<'_>) -> Data {
    notes.unused("data.path", &written.path, "source = \"synthetic\" generates its data");
    let why = "source = \"synthetic\" holds out a tenth of its texts by itself";
    notes.unused("data.eval_path", &written.eval_path, why);
    notes.unused("data.held_out", &written.held_out, why);
    only_for_rows(&written, "synthetic", notes);
    let (rows, equal_length, flawed) = (written.rows(), written.equal_length(), written.flawed());
    let chosen = written.tasks.unwrap_or_else(|| TASKS.iter().map(|task| task.to_string()).collect());
    let in_order = TASKS.iter().filter(|task| chosen.iter().any(|name| name == *task));
    Data::Synthetic {
        rows,
        held_out_rows: written.held_out_rows.unwrap_or((rows / 10).max(1)),
        tasks: in_order.map(|task| task.to_string()).collect(),
        equal_length,
        flawed,
    }
}

fn text(written: Written, notes: &mut Notes<'_>) -> Data {
    if !notes.reported("data.source") {
        files(&written, "text", "corpus/*.txt", notes);
        only_for_rows(&written, "text", notes);
    }
    let held_out = held_out(&written, None, notes);
    Data::Text { path: written.path.unwrap_or_default(), held_out }
}

fn jsonl(written: Written, notes: &mut Notes<'_>) -> Data {
    files(&written, "jsonl", "rows.jsonl", notes);
    for (key, there) in [("eval_path", written.eval_path.is_some()), ("split_column", written.split_column.is_some())] {
        let why = format!("data.{key} says which rows are held out; remove it or data.group_column");
        notes.unused("data.group_column", &written.group_column.as_ref().filter(|_| there), &why);
    }
    Data::Jsonl {
        held_out: held_out(&written, written.split_column.clone(), notes),
        path: written.path.unwrap_or_default(),
        group_column: written.group_column,
        chat_template: written.chat_template,
        max_length: written.max_length,
        truncation: written.truncation,
        columns: columns(written.columns, notes),
    }
}

/// Refuses two columns that come from the same one.
fn columns(written: Option<WrittenColumns>, notes: &mut Notes<'_>) -> Columns {
    let written = written.unwrap_or_default();
    let given = [
        ("prompt", written.prompt),
        ("completion", written.completion),
        ("messages", written.messages),
        ("chosen", written.chosen),
        ("rejected", written.rejected),
        ("label", written.label),
        ("answer", written.answer),
        ("margin", written.margin),
    ];
    let columns: Columns = given.into_iter().filter_map(|(name, from)| Some((name.to_owned(), from?))).collect();
    for (name, from) in &columns {
        if let Some((other, _)) = columns.iter().find(|(other, also)| *other < name && *also == from) {
            notes.refuse(&format!("data.columns.{name}"), format!("\"{from}\" is data.columns.{other} already"));
        }
    }
    columns
}

/// Refuses keys that only the synthetic source has, and requires `data.path`.
fn files(written: &Written, source: &str, example: &str, notes: &mut Notes<'_>) {
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

fn only_for_rows(written: &Written, source: &str, notes: &mut Notes<'_>) {
    let why = format!("only source = \"jsonl\" reads it, and source is \"{source}\"");
    notes.unused("data.split_column", &written.split_column, &why);
    notes.unused("data.group_column", &written.group_column, &why);
    notes.unused("data.chat_template", &written.chat_template, &why);
    notes.unused("data.max_length", &written.max_length, &why);
    notes.unused("data.truncation", &written.truncation, &why);
    notes.unused("data.columns", &written.columns, &why);
}

fn held_out(written: &Written, split_column: Option<String>, notes: &mut Notes<'_>) -> HeldOut {
    let (fraction, eval_path) = (written.held_out.is_some(), written.eval_path.is_some());
    if fraction && eval_path {
        notes.refuse(
            "data.held_out",
            "contradicts data.eval_path: give the files to evaluate on, or a fraction to hold out",
        );
    }
    if split_column.is_some() {
        let why = "contradicts data.split_column, which says what is held out: give one of them";
        for (key, there) in [("data.held_out", fraction), ("data.eval_path", eval_path)] {
            if there {
                notes.refuse(key, why);
            }
        }
    }
    match (&written.eval_path, split_column) {
        (Some(eval_path), _) => HeldOut::Files { eval_path: eval_path.clone() },
        (None, Some(split_column)) => HeldOut::Column { split_column },
        (None, None) => HeldOut::Fraction { held_out: written.held_out() },
    }
}
