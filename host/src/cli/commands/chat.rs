//! `telos chat`.

use std::{
    io::{self, BufRead, IsTerminal},
    ops::ControlFlow,
    path::PathBuf,
};

use clap::Args;

use crate::{
    cli::{
        args::{BackendArgs, SamplingArgs, at_least_one},
        print,
    },
    error::{Error, Result},
    generate::Finish,
    inference::{
        chat::{self, Turn},
        saved_model::Opened,
    },
    runs::AnswerInterrupt,
};

/// Talk with a model on the terminal, through its own chat template.
///
/// An answer is printed while it is generated, and ends where the model ends its turn. Ctrl-C
/// ends an answer, Ctrl-D the program. If the conversation no longer fits into the model's
/// context, its oldest messages are dropped, and their number is printed.
///
/// Commands: /reset begins a new conversation; /system TEXT sets the system message and begins
/// a new conversation; /help; /quit. Without a terminal, every line of standard input is a
/// message, and standard output has only the answers:
///
///     printf 'Hello\nAnd you?\n' | telos chat MODEL --temperature 0
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Chat {
    /// A run, a checkpoint, a Hugging Face folder, a GGUF file or a model of the hub (hf:org/name).
    model: PathBuf,
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A Jinja file, "tokenizer:NAME" for one of the model's several templates, or "plain" for lines without roles; default: the
    /// model's own template. If it prints the date, that is today's.
    #[arg(long, value_name = "TEMPLATE")]
    chat_template: Option<String>,
    /// Longest answer in tokens.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    backend: BackendArgs,
}

const HELP: &str = "\
/reset         begin a new conversation
/system TEXT   set the system message and begin a new conversation; without TEXT: remove it
/help          this list
/quit          end the program, as Ctrl-D does
Ctrl-C ends an answer.
";

/// Precedes what the user types.
const PROMPT: &str = "> ";

pub(in crate::cli) fn execute(args: Chat, plugin_folders: Vec<PathBuf>) -> Result<()> {
    let options = args.sampling.options(args.max_tokens)?;
    let mut opened = Opened::open(&args.model, &args.backend.choice(plugin_folders))?;
    let template = chat::template(&opened, args.chat_template.as_deref())?;
    opened.end_turns_of(&template)?;
    let shown = io::stdin().is_terminal();
    let idle =
        move || print::err(&format!("\n(/quit or Ctrl-D ends the program)\n{}", if shown { PROMPT } else { "" }));
    let mut talk = Talk {
        chat: chat::Chat::new(&opened, &template, options, args.system),
        interrupt: AnswerInterrupt::listen(idle)?,
        shown,
    };
    if shown {
        print::err("/help lists the commands; Ctrl-C ends an answer, Ctrl-D the program\n");
    }
    let mut lines = io::stdin().lock();
    for number in 1_u64.. {
        if shown {
            print::err(PROMPT);
        }
        let line = match read_line(&mut lines) {
            Ok(Some(line)) => line,
            Ok(None) => {
                if shown {
                    print::err("\n");
                }
                return Ok(());
            }
            // As for a message that is refused.
            Err(error) if shown && error.exit_code() == 2 => {
                print::err(&error.report());
                continue;
            }
            Err(error) => return Err(error.context(format!("standard input: line {number} cannot be read"))),
        };
        match talk.line(line.trim_end()) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            // On a terminal a message can be written in another way; a script must not go on without its answer.
            Err(error) if shown && error.exit_code() == 2 => print::err(&error.report()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The longest line that is read, in bytes: longer than any context.
const LONGEST_LINE: u64 = 1 << 26;

/// Returns the next line of standard input; `None` at its end.
fn read_line(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = io::Read::take(input, LONGEST_LINE).read_until(b'\n', &mut line);
    read.map_err(|cause| Error::run("cannot read standard input").with_cause(cause))?;
    if line.len() as u64 >= LONGEST_LINE {
        return Err(Error::request(format!("it has more than {LONGEST_LINE} bytes")));
    }
    if line.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(line)
        .map_err(|_| Error::request("it is not UTF-8 text").with_hint("convert the text to UTF-8"))?;
    Ok(Some(text))
}

/// A conversation on the terminal.
struct Talk<'a> {
    chat: chat::Chat<'a>,
    interrupt: AnswerInterrupt,
    /// Whether the user sees what is printed: standard input is a terminal.
    shown: bool,
}

impl Talk<'_> {
    /// Obeys a command or answers a message.
    fn line(&mut self, line: &str) -> Result<ControlFlow<()>> {
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match command {
            _ if line.trim().is_empty() => {}
            "/quit" | "/exit" => return Ok(ControlFlow::Break(())),
            "/help" => print::err(HELP),
            "/reset" => {
                self.chat.reset();
                print::err("a new conversation\n");
            }
            "/system" => {
                let text = Some(rest.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
                print::err(if text.is_some() {
                    "a new conversation with this system message\n"
                } else {
                    "a new conversation without a system message\n"
                });
                self.chat.set_system(text);
            }
            _ if command.len() > 1 && command.starts_with('/') && command[1..].chars().all(char::is_alphabetic) => {
                let what = format!("{command} is not a command");
                return Err(
                    Error::request(what).with_hint("/help lists the commands; a message may begin with a space")
                );
            }
            _ => return self.answer(line.trim()),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Answers a message; breaks if the reader of standard output has closed the pipe.
    fn answer(&mut self, text: &str) -> Result<ControlFlow<()>> {
        self.interrupt.answer_begins();
        let interrupt = self.interrupt.clone();
        let said = self.chat.say(text, &mut |piece| {
            let stops = print::stream(piece)?.is_break() || interrupt.requested();
            Ok(if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        self.interrupt.answer_ended();
        let Turn { tokens, seconds, finish, dropped } = said?;
        if print::stream("\n")?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if dropped > 0 {
            print::err(&format!(
                "the context was full: the oldest {dropped} messages were dropped from the conversation\n"
            ));
        }
        let end = match finish {
            Some(Finish::EndOfSequence) => "",
            Some(Finish::MaxTokens) => "; cut off at --max-tokens",
            Some(Finish::Context) => "; cut off: the context is full",
            None => "; stopped",
        };
        let speed = tokens as f64 / seconds.max(1e-9);
        print::err(&format!("({tokens} tokens, {speed:.1} tokens/s{end})\n"));
        if self.shown {
            print::err("\n");
        }
        Ok(ControlFlow::Continue(()))
    }
}
