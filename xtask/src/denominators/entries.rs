//! What the page shows.

/// One objective's batch, cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Cut {
    pub plugin: &'static str,
    /// What divides the loss.
    pub normaliser: &'static str,
    /// The number of micro-batches, the loss and the gradient norm.
    pub cuts: Vec<(u64, f64, f64)>,
}

/// A thread of another framework.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thread {
    pub framework: String,
    pub links: Vec<String>,
    pub by: String,
    pub date: String,
    pub what: String,
    pub numbers: String,
    pub outcome: String,
}
