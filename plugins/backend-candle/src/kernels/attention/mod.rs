//! Attention: over packed sequences, forward and backward, and over cached keys and values.

pub mod backward;
pub mod decode;
pub mod forward;
pub mod task;
