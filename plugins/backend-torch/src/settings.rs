//! The options of a session, as the session keeps them.

/// What the options of a session say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) tf32: bool,
    pub(crate) deterministic: bool,
}
