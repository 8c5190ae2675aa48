//! The shape of a model, and its JSON files.
//!
//! | file | job |
//! |---|---|
//! | [`config`] | the shape |
//! | [`fresh`] | the shape of a model with fresh weights |
//! | `config_json` | `config.json` in and out |
//! | `keys` | typed access to their keys |
//! | [`rope`] | frequencies of rotary positions |
//! | `rope_json`, `windows` | the keys of config.json about rotary positions and sliding windows |
//! | `generation_json` | `generation_config.json` in and out |

pub mod config;
mod config_json;
pub mod fresh;
pub(super) mod generation_json;
pub(super) mod keys;
pub mod rope;
mod rope_json;
mod windows;
