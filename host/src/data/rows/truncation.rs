//! What happens to rows that are too long.

use serde::{Deserialize, Serialize};

/// How a row that is too long is made shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncation {
    /// Its end is cut off, and with it the end-of-text token; dropped where no completion is left.
    Right,
    /// The beginning of its prompt is cut off (the token that inputs begin with stays), of a pair the same on both sides;
    /// dropped where that is not enough.
    Left,
    /// It is dropped.
    Drop,
}
