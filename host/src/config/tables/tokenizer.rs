//! `[tokenizer]`: how text becomes tokens.

use serde::Serialize;

use super::model::Model;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// how text becomes tokens
    pub struct Written at "tokenizer": Form::Table, example { kind = "bytes" } {
        /// bytes: 256 byte values and an end-of-text token; file: a tokenizer.json; model: the one in model.from
        kind: String, Form::Word(&["bytes", "file", "model"]), default "\"model\" with model.from, else \"bytes\"",
            example "file";
        /// the tokenizer.json of kind = "file", relative to the current directory
        path: String, Form::Text, example "tokenizer.json";
    }
}

/// `[tokenizer]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Tokenizer {
    /// 256 byte values and an end-of-text token.
    Bytes,
    /// A tokenizer.json.
    File {
        /// Its path.
        path: String,
    },
    /// The tokenizer in the folder of `model.from`.
    Model,
}

/// Resolves `[tokenizer]`.
pub fn resolve(written: Written, model: &Model, notes: &mut Notes<'_>) -> Tokenizer {
    let has_model = matches!(model, Model::From { .. });
    let kind = written.kind.as_deref().unwrap_or(if has_model { "model" } else { "bytes" });
    if kind != "file" && !notes.reported("tokenizer.kind") {
        let why = format!("only kind = \"file\" reads this key, and kind is \"{kind}\"");
        notes.unused("tokenizer.path", &written.path, &why);
    }
    match kind {
        "file" => {
            if written.path.is_none() {
                notes.missing("tokenizer.path", "kind = \"file\" reads it; for example path = \"tokenizer.json\"");
            }
            Tokenizer::File { path: written.path.unwrap_or_default() }
        }
        "model" => {
            if !has_model {
                notes.refuse("tokenizer.kind", "\"model\" uses the tokenizer of model.from, which is not given");
            }
            Tokenizer::Model
        }
        _ => Tokenizer::Bytes,
    }
}
