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

/// Begins the name of one of several templates of a tokenizer.
const NAMED: &str = "tokenizer:";

/// What --chat-template takes.
const TAKES: &str = "give --chat-template a Jinja file, \"plain\", \"tokenizer\" or \"tokenizer:NAME\"";

/// Returns how rows are written. `wanted` is `plain`, `tokenizer`, `tokenizer:NAME` or a template's file; `None`: messages are
/// written by the tokenizer's template, plain texts without one. `has_messages`: whether some rows are messages.
///
/// # Errors
/// A template that cannot be read, or that the tokenizer does not have.
pub fn layout(tokenizer: &Tokenizer, wanted: Option<&str>, has_messages: bool) -> Result<RowLayout> {
    let mut origin = "the template".to_owned();
    let source = match wanted {
        None if !has_messages || tokenizer.chat_template_names().next().is_none() => plain(tokenizer),
        Some("plain") => plain(tokenizer),
        None | Some("tokenizer") => of_tokenizer(tokenizer, DEFAULT, &mut origin)?,
        Some(named) if named.starts_with(NAMED) => of_tokenizer(tokenizer, &named[NAMED.len()..], &mut origin)?,
        Some(path) => {
            path.clone_into(&mut origin);
            read_template(path.as_ref()).map_err(|error| {
                let remedy = error.hint().unwrap_or(TAKES.to_owned());
                Error::request(format!("cannot read the chat template {path}")).with_cause(error).with_hint(remedy)
            })?
        }
    };
    let template =
        ChatTemplate::of(&origin, &source, tokenizer).map_err(|error| Error::from(error).with_hint(TAKES))?;
    Ok(RowLayout { template, strings: wanted.is_some() })
}

/// Returns the tokenizer's template of this name, and sets where it comes from.
fn of_tokenizer(tokenizer: &Tokenizer, wanted: &str, origin: &mut String) -> Result<String> {
    if let Some(template) = tokenizer.named_chat_template(wanted) {
        tokenizer.chat_template_origin(wanted).unwrap_or_default().clone_into(origin);
        return Ok(template.to_owned());
    }
    let names: Vec<&str> = tokenizer.chat_template_names().collect();
    let name = tokenizer.name();
    let Some(first) = names.first() else {
        return Err(Error::request(format!("the tokenizer {name} has no chat template"))
            .with_hint("give --chat-template plain, or a Jinja file"));
    };
    let which = if wanted == DEFAULT {
        "none that is used without its name".to_owned()
    } else {
        format!("none called {wanted}")
    };
    Err(Error::request(format!("the tokenizer {name} has chat templates called {}, and {which}", names.join(", ")))
        .with_hint(format!("choose one: --chat-template {NAMED}{first}")))
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

    /// A tokenizer whose chat templates have these names.
    fn with_templates(names: &[&str]) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        Tokenizer::bytes().unwrap().save(folder.path()).unwrap();
        let templates: Vec<_> =
            names.iter().map(|name| json!({"name": name, "template": format!("{name}.")})).collect();
        let config = folder.path().join("tokenizer_config.json");
        let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        settings["chat_template"] = json!(templates);
        std::fs::write(&config, settings.to_string()).unwrap();
        Tokenizer::open(folder.path()).unwrap()
    }

    /// Catches templates with names of which none can be chosen, and a refusal that does not list them.
    #[test]
    fn one_of_several_templates_is_chosen_by_its_name() {
        let tokenizer = with_templates(&["tool_use", "rag"]);
        let source =
            |wanted: &str| layout(&tokenizer, Some(wanted), true).map(|layout| layout.template.source().to_owned());
        assert_eq!(source("tokenizer:rag").unwrap(), "rag.");
        for wanted in ["tokenizer", "tokenizer:other"] {
            let error = source(wanted).unwrap_err();
            assert!(error.message().contains("called rag, tool_use, and none"), "{error:?}");
            assert_eq!(error.hint(), Some("choose one: --chat-template tokenizer:rag"));
        }
        assert!(layout(&tokenizer, None, true).is_err());
        assert_eq!(layout(&with_templates(&["default", "rag"]), None, true).unwrap().template.source(), "default.");
        // Not the key of an experiment, which a command does not have.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.jinja");
        std::fs::write(&file, "{% if %}").unwrap();
        let error = source(file.to_str().unwrap()).unwrap_err();
        assert!(
            !error.report().contains("data.chat_template") && error.report().contains("--chat-template"),
            "{error:?}"
        );
    }

    /// Catches a date that is not defined where a time is given, one of another day, and a wrong format that ends the program.
    #[test]
    fn a_template_prints_the_date_that_it_is_given() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let day = chrono::NaiveDate::from_ymd_opt(2026, 2, 3).unwrap().and_time(chrono::NaiveTime::MIN);
        let template = |source: &str| ChatTemplate::new(source, &tokenizer).unwrap();
        let render =
            |template: &ChatTemplate| template.render(&[], &Variables::default(), true).map(|found| found.text);
        let source = "{% if strftime_now is defined %}{{ strftime_now('%-d %B %Y, %d %b') }}{% endif %}.";
        assert_eq!(render(&template(source).at(day)).unwrap(), "3 February 2026, 03 Feb.");
        assert_eq!(render(&template(source)).unwrap(), ".");
        let direct = "{{ strftime_now('%Y') }}";
        assert_eq!(render(&template(direct).at(day)).unwrap(), "2026");
        assert!(render(&template(direct)).unwrap_err().contains("write a fixed date"));
        for wrong in ["{{ strftime_now('%Q') }}", "{{ strftime_now() }}", "{{ strftime_now(1) }}"] {
            assert!(render(&template(wrong).at(day)).unwrap_err().contains("strftime_now"), "{wrong}");
        }
    }

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
