//! A small reverse-mode tape in f64: an author writes the loss, and the tape computes its derivative by every statistic that the
//! loss reads (the cotangents that cross to the host).
//!
//! It has scalars, vectors (`[N]` tokens, `[S]` sequences, `[P]` pairs, `[G]` groups) and matrices (`[N, K]` candidates, `[S, D]`
//! pooled states). Terms, normalisers and the ABI are unknown to it. DPO's sigmoid loss, summed over pairs:
//!
//! ```
//! use plugin_api::tape::{Tape, TapeError};
//!
//! # fn main() -> Result<(), TapeError> {
//! // Two pairs of sequences of 2, 1, 1 and 2 tokens; the last token is not supervised.
//! let (offsets, pair, side) = ([0, 2, 3, 4, 6], [0, 0, 1, 1], [1, 0, 1, 0]);
//! let mask = [1, 1, 1, 1, 1, 0];
//! let beta = 0.1;
//!
//! let tape = Tape::with_offsets(&offsets);
//! let logp = tape.input("logp", [-1.0, -2.0, -4.0, -1.5, -2.5, f64::NAN]);
//! let reference = tape.constant([-1.5, -2.0, -3.0, -1.5, -2.0, f64::NAN]);
//! let log_ratio = (logp - reference).seq_sum(&mask);
//! let margin = beta * (log_ratio.chosen(&pair, &side) - log_ratio.rejected(&pair, &side));
//! let loss = -margin.log_sigmoid().sum();
//! let gradients = tape.backward(loss)?;
//!
//! assert!((loss.scalar()? - 1.289417).abs() < 1e-6);
//! let (_, cotangents) = gradients.by_name().next().unwrap();
//! assert!(cotangents[0] < 0.0 && cotangents[2] > 0.0 && cotangents[5] == 0.0);
//! # Ok(())
//! # }
//! ```
//!
//! # Rules
//!
//! - **Errors wait.** Operators cannot return a `Result`, so the first mistake (shapes that do not agree, an index out of
//!   range) is kept on the tape; everything after it does nothing, and every accessor ([`Var::value`], [`Var::scalar`],
//!   [`Tape::backward`], [`Tape::finish`]) returns it. The maths needs no `?`.
//! - **Broadcasting.** Two operands combine when their shapes are equal or one is a scalar (shape `[]`, an `f64` included).
//!   `[1]` is a vector, not a scalar. Everything else is spelled out: [`Var::to_tokens`] (`[S]` to `[N]`),
//!   [`Var::group_broadcast`] (`[G]` to `[S]`), [`Var::repeat_last`] (`[N]` to `[N, K]`).
//! - **Masking selects.** A masked entry is never multiplied by zero but left out, and a cotangent of exactly zero stays
//!   zero through every operation, whatever the derivative there. So a NaN or an infinity behind a zero of a mask reaches
//!   neither value nor gradient, also when it went through [`Var::exp`] before it was masked.
//! - **Means over nothing** (an empty mask, a sequence without supervised tokens) are 0 with gradient 0, not NaN.
//! - **Kinks.** [`Var::abs`] and [`Var::relu`] have derivative 0 at 0; [`Var::clamp`] has 1 inside *and at* its bounds, 0 outside;
//!   where [`Var::max`] or [`Var::min`] compare equals, each side gets half. These are PyTorch's conventions.
//!   Each of these blocks what lies behind a zero derivative, so an infinite cotangent does not become NaN there.
//! - **Detached values** ([`Var::detach`], [`stop_gradient`]) are constants of the gradient; while differences are taken they keep
//!   the values of the base point ([`record_detached`], [`replay_detached`]).
//! - **NaN is not hidden.** `max`, `min` and `clamp` of a NaN are NaN, unlike Rust's `f64::max`.
//! - **Deterministic.** Sums run in index order on one thread. Time and memory are linear in the tape's elements.

mod backward;
mod check;
mod detached;
mod elementwise;
mod error;
mod graph;
mod kind;
mod mask;
mod ops;
pub mod stable;

#[cfg(test)]
mod tests;

pub use backward::Gradients;
pub use check::{CheckError, Tolerance, check_gradient, check_tape, gradient_error};
pub use detached::{Detached, record_detached, replay_detached, stop_gradient};
#[doc(hidden)]
pub use detached::{Wanted, add_detached, wanted_detached};
pub use error::TapeError;
pub use graph::{IntoValue, Tape, Var};
pub use kind::OpKind;
pub use mask::{Id, Mask};
pub use ops::{CHOSEN, Operand, REJECTED};
