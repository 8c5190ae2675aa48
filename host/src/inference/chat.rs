//! A conversation with a saved model: its messages, the prompt that its chat template makes of them, and the model's answers.

use std::ops::ControlFlow;
use std::time::Instant;

use serde_json::json;

use crate::{
    data::rows::{ASSISTANT, ChatTemplate, Message, role, write::template::Variables},
    error::{Error, Result},
    generate::{Finish, GenerateOptions, session::Session},
    inference::{saved_model::Opened, templates},
};

/// The role of messages that the user writes.
const USER: &str = "user";

/// A conversation.
pub struct Chat<'a> {
    opened: &'a Opened,
    template: &'a ChatTemplate,
    session: Session<'a>,
    options: GenerateOptions,
    system: Option<String>,
    /// The messages after the system's.
    messages: Vec<Message>,
}

/// What became of a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Tokens of the answer.
    pub tokens: usize,
    /// Seconds from the question to the last token.
    pub seconds: f64,
    /// Why the answer ended; `None`: the user stopped it.
    pub finish: Option<Finish>,
    /// Earlier messages that were dropped, because the context has no room for them.
    pub dropped: usize,
}

/// Returns the template of a model's conversations: `wanted` (see [`templates::layout`]), or the tokenizer's. A date that it prints is
/// today's.
///
/// # Errors
/// A model without a template; a template that cannot be read.
pub fn template(opened: &Opened, wanted: Option<&str>) -> Result<ChatTemplate> {
    if wanted.is_none() && opened.tokenizer.chat_template_names().next().is_none() {
        let folder = opened.folder.display();
        let what = format!(
            "the model in {folder} has no chat template, so that it is unknown how its conversations are written"
        );
        return Err(Error::request(what).with_hint(
            "give --chat-template FILE.jinja, or --chat-template plain for lines without roles; a model that was not tuned on \
             conversations continues texts: telos generate MODEL --prompt TEXT",
        ));
    }
    let template = templates::layout(&opened.tokenizer, wanted.or(Some("tokenizer")), true)?.template;
    Ok(template.at(chrono::Local::now().naive_local()))
}

impl<'a> Chat<'a> {
    /// An empty conversation.
    pub fn new(
        opened: &'a Opened,
        template: &'a ChatTemplate,
        options: GenerateOptions,
        system: Option<String>,
    ) -> Self {
        let session = Session::new(&opened.model);
        Self { opened, template, session, options, system, messages: Vec::new() }
    }

    /// Forgets all messages but the system's.
    pub fn reset(&mut self) {
        self.messages.clear();
    }

    /// Sets the system's message, or removes it, and forgets all others.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
        self.reset();
    }

    /// Answers `text`. `on_text` gets the pieces of the answer, always whole characters, and returns whether to continue.
    ///
    /// # Errors
    /// A text that is too long for the model's context, or that the template refuses; errors of `on_text` and of the backend. The
    /// conversation is then as before.
    pub fn say(&mut self, text: &str, on_text: &mut dyn FnMut(&str) -> Result<ControlFlow<()>>) -> Result<Turn> {
        let before = self.messages.clone();
        let turn = self.turn(text, on_text);
        if turn.is_err() {
            self.messages = before;
        }
        turn
    }

    fn turn(&mut self, text: &str, on_text: &mut dyn FnMut(&str) -> Result<ControlFlow<()>>) -> Result<Turn> {
        let start = Instant::now();
        self.messages.push(message(USER, text));
        let (prompt, dropped) = self.fitting_prompt()?;
        self.messages.drain(..dropped);
        let Chat { opened, session, options, .. } = self;
        let mut decoder = opened.tokenizer.stream(true);
        let mut failure = None;
        let (tokens, finish) = session.answer(&prompt, options, &mut |drawn| {
            let piece = decoder.push(drawn.token as u32).map_err(Error::from);
            piece.and_then(|piece| on_text(&piece)).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        _ = on_text(&decoder.finish()?)?;
        let ids: Vec<u32> = tokens.iter().map(|id| *id as u32).collect();
        self.messages.push(message(ASSISTANT, &opened.tokenizer.answer_text(&ids)?));
        Ok(Turn { tokens: ids.len(), seconds: start.elapsed().as_secs_f64(), finish, dropped })
    }

    /// Returns the prompt of the conversation, without as many of its oldest messages as must be dropped so that an answer has
    /// room, and their number.
    fn fitting_prompt(&self) -> Result<(Vec<i32>, usize)> {
        let context = self.opened.model.config().context as usize;
        let room = self.options.max_tokens.min(context / 4).max(1);
        let mut dropped = 0;
        loop {
            let prompt = self.prompt(dropped)?;
            if prompt.len() + room <= context {
                return Ok((prompt, dropped));
            }
            // Exchanges are dropped whole, so that what is left begins with the user.
            let next = self.messages.iter().enumerate().skip(dropped + 1).find(|(_, message)| role(message) == USER);
            match next {
                Some((next, _)) => dropped = next,
                None if prompt.len() < context => return Ok((prompt, dropped)),
                None => {
                    let what = format!(
                        "the message has {} tokens as the chat template writes it, the model's context length {context}",
                        prompt.len()
                    );
                    return Err(Error::request(what).with_hint("shorten the message, or the system message"));
                }
            }
        }
    }

    /// Returns the tokens of the conversation from message `first` on, up to the beginning of an answer.
    fn prompt(&self, first: usize) -> Result<Vec<i32>> {
        let system = self.system.iter().map(|text| message("system", text));
        let messages: Vec<Message> = system.chain(self.messages.iter().skip(first).cloned()).collect();
        let rendered = self
            .template
            .render(&messages, &Variables::default(), true)
            .map_err(|what| Error::request(format!("the chat template cannot write this conversation: {what}")))?;
        let ids = self.opened.tokenizer.encode(&rendered.text)?;
        Ok(ids.into_iter().map(|id| id as i32).collect())
    }
}

fn message(role: &str, content: &str) -> Message {
    [("role", role), ("content", content)].map(|(key, value)| (key.to_owned(), json!(value))).into_iter().collect()
}
