//! The checks of one operation, by subject.

pub(super) mod aliases;
pub(super) mod conduct;
pub(super) mod errors;
pub(super) mod numbers;

pub(super) use conduct::same;
