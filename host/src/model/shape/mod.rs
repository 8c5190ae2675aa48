//! The shape of a model, and its JSON files.
//!
//! | file | job |
//! |---|---|
//! | [`fresh`] | the shape of a model with fresh weights |
//! | [`config`] | the shape |
//! | `config_json` | `config.json` in and out |
//! | `generation_json` | `generation_config.json` in and out |

pub mod config;
pub(super) mod config_json;
pub mod fresh;
pub(super) mod generation_json;
