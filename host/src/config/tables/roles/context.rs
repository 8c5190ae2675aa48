//! `[context]`: a model that reads the same answers behind other prompts. Whether an objective reads it is known only once its
//! plugin is loaded, and is checked then.

use serde::Serialize;

use super::critic::POLICY;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// the context model, which reads the same answers behind other prompts; only if an objective reads it
    pub struct Written at "context": Form::Table, example { prompt = "prompt_with_hint" } {
        /// policy: the policy itself, with its current weights, through which no gradient flows; or a run, a checkpoint or a
        /// Hugging Face folder with the policy's tokenizer and number of ids, whose context holds every row
        from: String, Form::Text, default "\"policy\"", example "runs/large";
        /// the column with the text that takes the place of the row's whole prompt, not one of the row's own parts; it is written
        /// as the prompt is, and cut on the left if it is too long
        prompt: String, Form::Text, example "prompt_with_hint";
    }
}

/// `[context]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Context {
    /// `policy`, or a model's folder.
    pub from: String,
    /// The column with the other prompts.
    pub prompt: String,
}

/// Resolves `[context]`.
pub fn resolve(written: Written, notes: &mut Notes<'_>) -> Option<Context> {
    if written.prompt.is_none() {
        let why = "the column with the other prompts is needed; for example prompt = \"prompt_with_hint\"";
        notes.missing("context.prompt", why);
    }
    Some(Context { from: written.from.unwrap_or_else(|| POLICY.to_owned()), prompt: written.prompt? })
}
