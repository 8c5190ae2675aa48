//! The backend's tests, in one binary.

mod agreement;
mod attention;
mod bf16;
mod conformance;
mod distill;
mod head;
mod refusals;
mod rig;
