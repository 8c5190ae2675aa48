//! How rows are written: the chat template that an experiment chooses.

use crate::{
    data::{
        Source,
        rows::{
            ChatTemplate,
            layout::RowLayout,
            template::{plain, read_template, sha256},
        },
        tokenizer::templates::DEFAULT,
    },
    error::{Error, Result, refusal_text},
    setup::Setup,
};

impl Setup {
    /// Returns how rows are written, and the template's file if it comes from one. `has_messages`: whether some rows are messages.
    pub(super) fn layout(&self, wanted: Option<&str>, has_messages: bool) -> Result<(RowLayout, Option<Source>)> {
        let refuse = |why: String| self.loaded.refuse("data.chat_template", why);
        let tokenizers = |name: &str| -> Result<_> {
            let origin = self.tokenizer.chat_template_origin(name).unwrap_or_default().to_owned();
            Ok((self.tokenizers_template(name)?, None, origin))
        };
        let here = "the template data.chat_template".to_owned();
        let (source, file, origin) = match wanted {
            None if !has_messages || self.tokenizer.chat_template_names().next().is_none() => {
                (plain(&self.tokenizer), None, here)
            }
            None => tokenizers(DEFAULT)?,
            Some("plain") => (plain(&self.tokenizer), None, here),
            Some("tokenizer") => tokenizers(DEFAULT)?,
            Some(named) if named.starts_with(NAMED) => tokenizers(&named[NAMED.len()..])?,
            Some(jinja) if jinja.contains("{%") || jinja.contains("{{") => (jinja.to_owned(), None, here),
            Some(path) => {
                let text = read_template(path.as_ref()).map_err(|e| refuse(refusal_text(&Error::from(e))))?;
                let source = Source { path: path.into(), bytes: text.len() as u64, sha256: sha256(&text) };
                (text, Some(source), path.to_owned())
            }
        };
        let template =
            ChatTemplate::of(&origin, &source, &self.tokenizer).map_err(|e| refuse(refusal_text(&Error::from(e))))?;
        Ok((RowLayout { template, strings: wanted.is_some() }, file))
    }
}

impl Setup {
    /// Returns the chat template of this name that came with the tokenizer.
    fn tokenizers_template(&self, wanted: &str) -> Result<String> {
        if let Some(template) = self.tokenizer.named_chat_template(wanted) {
            return Ok(template.to_owned());
        }
        let names: Vec<&str> = self.tokenizer.chat_template_names().collect();
        let tokenizer = self.tokenizer.name();
        let why = match names.first() {
            None => format!("the tokenizer {tokenizer} has no chat template; try \"plain\""),
            Some(first) => format!(
                "the tokenizer {tokenizer} has chat templates called {}, but none called {wanted}; choose one by its \
                 name, such as data.chat_template = \"{NAMED}{first}\"",
                names.join(", ")
            ),
        };
        Err(self.loaded.refuse("data.chat_template", why))
    }
}

/// Prefix of the name of a chat template that came with the tokenizer.
const NAMED: &str = "tokenizer:";
