//! The error of every command here: a text for the terminal.

/// A value, or the reason why there is none.
pub type Result<T> = std::result::Result<T, String>;
