//! Authors of plugins: a new crate, its installation, a trial, and the pages that describe this.

mod install;
mod new;
mod page;
mod shipped;
