//! Sizes of the panels of packed factors.

/// Rows of a panel of the left factor.
pub const ROWS: usize = 12;
/// Columns of a panel of the right factor.
pub const COLS: usize = 32;
/// Floats from term to term of a left panel: a whole line of the cache.
pub const LEFT: usize = 16;
