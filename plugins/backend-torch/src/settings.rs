//! The options of a session, parsed.

/// The parsed options of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) tf32: bool,
    pub(crate) deterministic: bool,
    /// Whether the plugin's own kernels are used where there is one.
    pub(crate) fused: bool,
}
