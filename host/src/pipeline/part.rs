//! Which stages of a pipeline are run.

/// Which stages are run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Part {
    /// All.
    #[default]
    All,
    /// The one of this name and those after it; those before it have been.
    From(String),
    /// The one of this name; those it takes something from have been.
    Only(String),
}
