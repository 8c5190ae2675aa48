//! How prompts of a saved model are written: its chat template, or one that the user names, and what ends a turn.

use serde_json::json;

use crate::{
    data::{
        Tokenizer,
        rows::{
            ASSISTANT, ChatTemplate, Message,
            write::{
                layout::RowLayout,
                template::{Variables, plain, read_template},
            },
        },
        tokenizer::templates::DEFAULT,
    },
    error::{Error, Result},
    inference::saved_model::Opened,
};

/// Returns how rows are written. `wanted` is `plain`, `tokenizer` or a template's file; `None`: messages are written by the
/// tokenizer's template, plain texts without one. `has_messages`: whether some rows are messages.
///
/// # Errors
/// A template that cannot be read, or that the tokenizer does not have.
pub fn layout(tokenizer: &Tokenizer, wanted: Option<&str>, has_messages: bool) -> Result<RowLayout> {
    let own = || {
        let name = tokenizer.name();
        let error =
            || Error::request(format!("the tokenizer {name} has no chat template of its own, or several by name"));
        tokenizer
            .chat_template()
            .map(str::to_owned)
            .ok_or_else(|| error().with_hint("give --chat-template plain, or a Jinja file"))
    };
    let mut origin = tokenizer.chat_template_origin(DEFAULT).unwrap_or("the template");
    let source = match wanted {
        None if !has_messages || tokenizer.chat_template_names().next().is_none() => plain(tokenizer),
        None | Some("tokenizer") => own()?,
        Some("plain") => plain(tokenizer),
        Some(path) => {
            origin = path;
            read_template(path.as_ref()).map_err(|error| {
                let remedy =
                    error.hint().unwrap_or("give \"plain\", \"tokenizer\" or the path of a Jinja file".to_owned());
                Error::request(format!("cannot read the chat template {path}")).with_cause(error).with_hint(remedy)
            })?
        }
    };
    Ok(RowLayout { template: ChatTemplate::of(origin, &source, tokenizer)?, strings: wanted.is_some() })
}

impl Opened {
    /// Makes generation stop at the token that `template` writes after an assistant's message, such as `<|im_end|>`, even if
    /// the model's files do not name it as an end. Ordinary words never end a turn.
    ///
    /// # Errors
    /// A tokenizer that fails.
    pub fn end_turns_of(&mut self, template: &ChatTemplate) -> Result<()> {
        let Some(id) = end_of_turn(template, &self.tokenizer)? else { return Ok(()) };
        if self.tokenizer.is_end(id) {
            return Ok(());
        }
        let mut ends = self.model.config().eos.clone();
        self.model.add_eos(Some(id));
        ends.push(id);
        self.tokenizer.fit_to_model(&ends, self.model.config().vocab)?;
        Ok(())
    }
}

/// What the assistant says in the conversation that shows how a template ends a turn.
const WORDS: &str = "Telos";

/// Returns the special token that follows an assistant's words, if the template writes one there.
fn end_of_turn(template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let message = |role: &str, content: &str| -> Message {
        [("role", role), ("content", content)].map(|(key, value)| (key.to_owned(), json!(value))).into_iter().collect()
    };
    let conversation = [message("user", "?"), message(ASSISTANT, WORDS)];
    // A template that cannot write this conversation is reported when it writes the user's.
    let Ok(rendered) = template.render(&conversation, &Variables::default(), false) else { return Ok(None) };
    let Some((_, after)) = rendered.text.rsplit_once(WORDS) else { return Ok(None) };
    let first = tokenizer.encode(after.trim_start())?.first().copied();
    Ok(first.filter(|id| tokenizer.is_special(*id) && Some(*id) != tokenizer.bos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::END_OF_TEXT;

    /// Catches words that end a turn, a token that opens the next turn, and a template without an end.
    #[test]
    fn only_a_special_token_after_the_answer_ends_a_turn() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let end = |after: &str| {
            let source = format!("{{% for m in messages %}}{{{{ m.content }}}}{after}{{% endfor %}}");
            end_of_turn(&ChatTemplate::new(&source, &tokenizer).unwrap(), &tokenizer).unwrap()
        };
        assert_eq!(end(END_OF_TEXT), tokenizer.eos());
        assert_eq!(end(&format!(" {END_OF_TEXT}\n")), tokenizer.eos());
        assert_eq!(end("\n"), None);
        assert_eq!(end("."), None);
        assert_eq!(end(""), None);
    }
}
