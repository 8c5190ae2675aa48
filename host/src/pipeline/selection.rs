//! Which stages of a pipeline are run.

/// Which stages are run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// The stage of this name and those after it; the stages before it must be done.
    From(String),
    /// Only the stage of this name; the stages it depends on must be done.
    Only(String),
}
