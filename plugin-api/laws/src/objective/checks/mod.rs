//! The laws, by subject.

pub(super) mod derivatives;
pub(super) mod description;
pub(super) mod expectations;
pub(super) mod instance;
pub(super) mod mathematics;
pub(super) mod options;
pub(super) mod requests;
pub(super) mod rows;
