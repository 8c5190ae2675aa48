//! The operations on variables, by family. Each adds one node to the tape.

mod compare;
mod matrix;
mod operators;
mod reduce;
mod select;

pub(super) use matrix::{logsumexp_backward, matmul_backward};
pub use operators::Operand;
pub use select::{CHOSEN, REJECTED};
