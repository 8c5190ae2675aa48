//! For authors of plugins: a crate to start from ([`new_crate`]), built and put in place ([`install`]), and an
//! objective tried beside a known one ([`trial`]). [`sdk`] finds the sources that such a crate is built with.

pub mod cargo;
pub mod install;
pub mod names;
pub mod new_crate;
pub mod sdk;
mod templates;
pub mod trial;
