//! Objectives on whole models.

mod dpo;
mod roles;
