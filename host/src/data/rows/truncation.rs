//! What happens to rows that are too long.

use crate::keys::words;

words! {
    /// How a row that is too long is shortened.
    pub enum Truncation {
        /// Its end is cut off, including the end-of-text token; it is dropped if nothing of the completion is left.
        Right = "right",
        /// The beginning of its prompt is cut off, except a prefix token; for a pair, the same tokens on both sides. It
        /// is dropped if that is not enough.
        Left = "left",
        /// It is dropped.
        Drop = "drop",
    }
}
