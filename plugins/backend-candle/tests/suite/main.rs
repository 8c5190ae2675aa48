//! The backend's tests, in one binary.

mod agreement;
mod attention;
mod conformance;
mod distill;
mod head;
mod refusals;
mod rig;
