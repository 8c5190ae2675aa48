//! A declared key.

use super::form::Form;

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path from the root, without list positions.
    pub path: &'static str,
    /// The form of its value.
    pub form: Form,
    /// The default as TOML, or in words if it depends on other keys; empty if there is none.
    pub default: &'static str,
    /// A valid value as TOML.
    pub example: &'static str,
    /// What it means, with units.
    pub meaning: &'static str,
    /// Whether its value, or any value of this table, may change when a run is resumed.
    pub may_change: bool,
}
