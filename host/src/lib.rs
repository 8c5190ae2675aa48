//! The Telos host: loads objective and backend plugins and runs experiments written in TOML.

pub mod cli;
pub mod config;
pub mod data;
pub mod error;
