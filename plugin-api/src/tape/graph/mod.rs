//! The recorded computation: nodes, the rules that connect them, and the tape that lists them.

mod node;
mod read;
mod rule;
mod tape;
mod value;

pub(super) use node::{Node, array, flat};
pub(super) use rule::{NO_SEGMENT, Rule, chain};
pub(super) use tape::State;
pub use tape::{Tape, Var};
pub use value::IntoValue;
