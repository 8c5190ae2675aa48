//! The host's error: its category (which decides the exit code), a message, its causes and a hint.
//!
//! [`Error::report`] is the only place that formats an error for a terminal; all other code only adds facts.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use plugin_api::error::Code;

/// Category of an error; decides the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request was wrong: the user must change it (exit code 2).
    Request,
    /// The work failed although the request was fine (exit code 1).
    Run,
    /// The user stopped the run; it can be resumed (exit code 130).
    Interrupted,
}

impl Kind {
    /// The exit code of a process that ends with this kind of error.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Run => 1,
            Kind::Request => 2,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure of the host, boxed so that `Result`s stay small.
pub struct Error(Box<Inner>);

/// Beginning of the message of an out-of-memory error.
const OUT_OF_MEMORY: &str = "out of memory";

struct Inner {
    kind: Kind,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    attached: Option<Box<dyn Any + Send + Sync>>,
}

/// The host's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            details: Vec::new(),
            hint: None,
            cause: None,
            attached: None,
        }))
    }

    /// The request was wrong (exit code 2).
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(Kind::Request, message)
    }

    /// The work failed (exit code 1).
    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }

    /// The user stopped the run and may resume it (exit code 130).
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, message)
    }

    /// Adds a hint how to fix it, printed as `help: ...`; a later hint replaces an earlier one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause; the chain of its sources is printed below the message.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds lines below the message, such as all mistakes found in a file.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.details.extend(details.into_iter().map(Into::into));
        self
    }

    /// Attaches what code that handles the error needs, such as a typed list of the mistakes in its details; it is not printed.
    #[must_use]
    pub fn with_attached(mut self, attached: impl Any + Send + Sync) -> Self {
        self.0.attached = Some(Box::new(attached));
        self
    }

    /// What was attached, if it is of this type.
    pub fn attached<T: Any>(&self) -> Option<&T> {
        self.0.attached.as_deref().and_then(|attached| (attached as &dyn Any).downcast_ref())
    }

    /// Wraps this error in a message about what was being done; its kind and hint stay the same.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let outer = Error::new(self.kind(), message);
        let hint = self.0.hint.take();
        let mut outer = outer.with_cause(self);
        outer.0.hint = hint;
        outer
    }

    /// Whether the device ran out of memory.
    pub fn is_out_of_memory(&self) -> bool {
        self.0.message.starts_with(OUT_OF_MEMORY)
    }

    /// Its category.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message alone, without causes, details and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The lines below the message.
    pub fn details(&self) -> &[String] {
        &self.0.details
    }

    /// The hint, if there is one.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        self.kind().exit_code()
    }

    /// The whole error as it is printed: message, details, causes, hint; every line ends with a newline.
    pub fn report(&self) -> String {
        let label = if self.kind() == Kind::Interrupted { "interrupted" } else { "error" };
        let mut text = format!("{label}: {}\n", self.0.message);
        push_details(&mut text, &self.0.details);
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!("  caused by: {error}\n"));
            if let Some(host) = error.downcast_ref::<Error>() {
                push_details(&mut text, &host.0.details);
            }
            cause = error.source();
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("help: {hint}\n"));
        }
        text
    }
}

fn push_details(text: &mut String, details: &[String]) {
    for detail in details {
        text.push_str(&format!("  {detail}\n"));
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.report().trim_end())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

/// A plugin's refusal of an option, a device or a contract is a request error; any other plugin error is a failed run.
impl From<plugin_api::Error> for Error {
    fn from(error: plugin_api::Error) -> Self {
        let kind = match error.code {
            Code::OPTION | Code::DEVICE | Code::LAYOUT => Kind::Request,
            _ => Kind::Run,
        };
        if error.code == Code::OUT_OF_MEMORY {
            return Error::new(kind, format!("{OUT_OF_MEMORY}: {error}"))
                .with_hint("lower train.micro_batch_tokens, or set train.recompute = \"all\"");
        }
        if error.code == Code::LOST {
            return Error::new(kind, error.to_string())
                .with_hint("only a new process can use the device again: continue with --resume");
        }
        Error::new(kind, error.to_string())
    }
}

/// The error as one entry of a list of mistakes: message, cause, details and hint in one line.
pub(crate) fn refusal_text(error: &Error) -> String {
    let hint = error.hint().map(|h| format!(" ({h})")).unwrap_or_default();
    let details = error.details().iter().map(|d| format!("; {d}")).collect::<String>();
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{}{cause}{details}{hint}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a report that drops a link of the chain, a detail, or the hint, or prints the hint before the causes.
    #[test]
    fn report_prints_message_details_causes_and_hint_in_this_order() {
        let disk = std::io::Error::other("disk is full");
        let inner = Error::run("cannot write optimizer.safetensors").with_cause(disk).with_hint("free some space");
        let outer = inner.context("checkpoint of step 20 failed").with_details(["last good one: step 10"]);
        assert_eq!(
            outer.report(),
            "error: checkpoint of step 20 failed\n  \
               last good one: step 10\n  \
               caused by: cannot write optimizer.safetensors\n  \
               caused by: disk is full\n\
             help: free some space\n"
        );
    }

    /// Catches exit codes that are swapped or shared between kinds.
    #[test]
    fn kinds_have_the_exit_codes_that_scripts_rely_on() {
        let codes = [Error::run(""), Error::request(""), Error::interrupted("")].map(|error| error.exit_code());
        assert_eq!(codes, [1, 2, 130]);
    }

    /// Catches a conversion that calls every plugin error a failed run.
    #[test]
    fn a_plugins_refusal_of_an_option_is_a_wrong_request() {
        let option = plugin_api::Error::new(Code::OPTION, "beta must be positive").in_plugin("dpo");
        let error = Error::from(option);
        assert_eq!((error.kind(), error.message()), (Kind::Request, "dpo: beta must be positive"));
        assert_eq!(Error::from(plugin_api::Error::internal("boom")).kind(), Kind::Run);
    }

    /// Catches a report that does not mention that memory ran out, or what helps.
    #[test]
    fn out_of_memory_is_reported_with_a_hint() {
        let error = Error::from(plugin_api::Error::new(Code::OUT_OF_MEMORY, "alloc: 9 elements of f32"));
        assert_eq!(error.message(), "out of memory: alloc: 9 elements of f32");
        assert!(error.hint().is_some_and(|hint| hint.contains("train.micro_batch_tokens")));
    }
}
