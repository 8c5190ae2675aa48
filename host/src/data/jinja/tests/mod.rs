//! Tests that an untrusted template cannot do harm.

mod fuzz;
mod hostile;
mod large;
mod long;
