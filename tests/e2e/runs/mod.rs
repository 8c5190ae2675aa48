//! Runs and pipelines: the commands around them, what they leave, how they fail and are resumed.

mod commands;
pub mod distribution;
mod events;
mod failures;
mod leftovers;
mod pipelines;
mod quickstart;
mod receipts;
mod resume;
mod studies;
