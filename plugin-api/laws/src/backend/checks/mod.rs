//! The checks of one operation, by what they look at.

pub(super) mod aliases;
pub(super) mod conduct;
pub(super) mod errors;
pub(super) mod numbers;

pub(super) use conduct::same;
