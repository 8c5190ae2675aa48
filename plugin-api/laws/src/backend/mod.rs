//! The conformance suite of backends, which a backend's author runs until it passes.
//!
//! [`verify`] compares a session with a reference session on the same inputs, within limits that follow from the size of the terms
//! that are added up (`limits`). It covers every operation over empty, single, odd, packed, strided and large operands, with and
//! without each optional one, forward and backward. It checks that the same call gives the same bits, that nothing outside the
//! outputs changes, that wrong calls are refused with the right code and leave the session usable, and that nothing leaks.
//! [`Suite`] runs a part of it, and the checks that need a second session or a process of their own. [`verify_gradients`] compares
//! the backward operations of an f64 session with finite differences of its forward ones.
//!
//! Adding an operation to the catalogue without a row in `tables` and a formula in `limits` fails the suite.

mod case;
mod cases;
mod checks;
mod compare;
mod family;
mod gradients;
mod limits;
mod rules;
mod stage;
mod steadiness;
mod suite;
mod tables;
mod tensor;

pub use compare::{Distance, distance};
pub use gradients::{verify_gradients, verify_gradients_of};
pub use suite::{Suite, verify, verify_session};
pub(crate) use tensor::{decode, encode, size_of};
