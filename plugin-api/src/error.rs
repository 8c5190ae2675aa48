//! The error type of the contract: a code for programs and a text for people.
//!
//! Codes are permanent integers, so that a host and a plugin of different minor versions understand each other; an unknown code is
//! handled like [`Code::INTERNAL`].

use std::fmt;

/// What went wrong, as a permanent integer. Unknown values are legal: treat them as [`Code::INTERNAL`].
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($value);)*

            /// Every code of this minor with its name, in numeric order.
            pub const ALL: &'static [(Code, &'static str)] = &[$((Code::$name, stringify!($name)),)*];
        }
    };
}

codes! {
    /// A fault in the plugin or host that fits no other code.
    INTERNAL = 1,
    /// An argument is wrong in a way that no other code names.
    INVALID_ARGUMENT = 2,
    /// The operation, option, device or slot does not exist here.
    UNSUPPORTED = 3,
    /// The device is out of memory; the session stays usable and the caller may retry with something smaller.
    OUT_OF_MEMORY = 4,
    /// Two operands' shapes contradict each other or the operation.
    SHAPE = 5,
    /// An operand has a type the operation does not take.
    DTYPE = 6,
    /// A token id, position, row or slot lies outside its table.
    INDEX = 7,
    /// A handle is stale (freed) or foreign (of another session), or a view leaves its buffer.
    HANDLE = 8,
    /// An output overlaps another operand in a way the catalogue does not allow.
    ALIAS = 9,
    /// An option's name, type or value is refused.
    OPTION = 10,
    /// The plugin panicked; the panic was stopped at the border.
    PANIC = 11,
    /// The instance panicked earlier and cannot be called again.
    POISONED = 12,
    /// Saved state could not be restored.
    STATE = 13,
    /// The device does not exist, is not compiled in, or failed.
    DEVICE = 14,
    /// The library is not a plugin, or of a contract this host cannot speak.
    LAYOUT = 15,
    /// An array the call needs is missing, or has the wrong length.
    ARRAY = 16,
    /// The device failed and its context is lost: every further call of this session fails, and only a new process can use the
    /// device again.
    LOST = 17,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Code::ALL.iter().find(|(code, _)| code == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "CODE_{}", self.0),
        }
    }
}

/// An error that may cross the ABI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// What kind of failure it is.
    pub code: Code,
    /// What happened, naming the operation and both sides (shapes, dtypes, keys).
    pub message: String,
    /// The id of the plugin it happened in; empty on the host's side.
    pub plugin: String,
    /// `file:line:column` of a panic; empty otherwise.
    pub location: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.plugin.is_empty() {
            write!(f, "{}: ", self.plugin)?;
        }
        f.write_str(&self.message)?;
        if !self.location.is_empty() {
            write!(f, " (at {})", self.location)?;
        }
        Ok(())
    }
}

impl Error {
    /// An error of `code` with `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), plugin: String::new(), location: String::new() }
    }

    /// An [`Code::INVALID_ARGUMENT`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_ARGUMENT, message)
    }

    /// An [`Code::UNSUPPORTED`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::UNSUPPORTED, message)
    }

    /// An [`Code::INTERNAL`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::INTERNAL, message)
    }

    /// The same error with `plugin` as its plugin, unless it already names one.
    #[must_use]
    pub fn in_plugin(mut self, plugin: &str) -> Self {
        if self.plugin.is_empty() {
            self.plugin = plugin.to_owned();
        }
        self
    }
}

/// The contract's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
