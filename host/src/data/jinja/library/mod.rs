//! What a template can call.
//!
//! | what | file |
//! |---|---|
//! | filters of texts and numbers, `tojson`; filters of lists | [`filters`], [`sequences`] |
//! | tests | [`predicates`] |
//! | functions; the arguments of calls | [`functions`], [`args`] |
//! | methods of Python's types; those of strings; two ways to format | [`methods`], [`strings`] (on [`text_functions`]), [`mod@format`] |

pub mod args;
mod filters;
pub mod format;
pub mod functions;
pub mod methods;
mod predicates;
pub mod sequences;
pub mod strings;
mod text_functions;
