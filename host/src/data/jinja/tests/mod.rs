//! What a template of a stranger cannot do.

mod fuzz;
mod hostile;
mod long;
