//! The blocks of queries and keys into which attention is split.

/// Queries of a block.
pub const QUERIES: usize = 64;
/// Keys of a block.
pub const KEYS: usize = 128;

/// One piece of attention: some queries of one head of one sequence.
#[derive(Clone, Copy)]
pub struct Task {
    /// First token of the sequence.
    pub start: usize,
    /// Its tokens.
    pub len: usize,
    /// Its prefix length.
    pub prefix: usize,
    /// Query head, or key-value head in the backward.
    pub head: usize,
    /// First query, from the sequence's start.
    pub query: usize,
}

/// Lists tasks for `heads` heads: one per block of `queries` queries.
pub fn list(tasks: &mut Vec<Task>, offsets: &[i32], prefix: Option<&[i32]>, heads: usize, queries: usize) {
    tasks.clear();
    for (s, ends) in offsets.windows(2).enumerate() {
        let (start, len) = (ends[0] as usize, (ends[1] - ends[0]) as usize);
        let prefix = prefix.map_or(0, |prefix| prefix[s] as usize);
        for head in 0..heads {
            tasks.extend((0..len).step_by(queries).map(|query| Task { start, len, prefix, head, query }));
        }
    }
}

/// Returns the number of pairs of query and key, masked ones included, to estimate the run time.
pub fn pairs(tasks: &[Task], queries: usize) -> usize {
    tasks.iter().map(|t| t.len * queries.min(t.len)).sum()
}
