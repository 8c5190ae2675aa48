//! The Telos host: loads objective and backend plugins and runs experiments written in TOML.

pub mod authoring;
pub mod capacity;
pub mod cli;
pub mod compare;
pub mod config;
pub mod data;
pub mod decimals;
pub mod device;
pub mod error;
pub mod families;
pub mod files;
pub mod generate;
pub mod html;
pub mod inference;
pub mod keys;
pub mod model;
pub mod objectives;
pub mod optimizer;
pub mod pipeline;
pub mod plot;
pub mod plugins;
pub mod report;
pub mod runs;
pub mod setup;
pub mod train;
pub mod verify;
