//! Saved models outside of a run: opened from a folder, and evaluated on text or on rows.

pub mod batch;
pub mod chat;
pub mod evaluate_rows;
pub mod inspect;
pub mod saved_model;
pub mod settings;
pub mod tasks;
pub mod templates;
