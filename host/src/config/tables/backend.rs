//! `[backend]`: the plugin, device and compute type.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::device::Dtype;
use crate::keys::notes::Notes;
use crate::keys::{Form, table};

table! {
    /// the backend that computes; further keys are options of the plugin
    pub struct Written at "backend": Form::Plugin, example { plugin = "candle" } {
        /// id of the backend plugin
        plugin: String = "candle", Form::Text, example "candle";
        /// device: cpu, metal, cuda:0 ..., if the backend supports it
        device: String = "cpu", Form::Text, example "cpu";
        /// compute type; master weights and optimizer state are kept in f32 or higher precision
        dtype: Dtype, Form::Word(Dtype::WORDS), default "\"f32\"", example "f32";
        /// threads of the backend; 0 means all cores; changes the result only if the backend's description says so (torch on cpu: last bits)
        threads: usize = 0, Form::Int(0, 4096), example 2, may_change;
    }
}

/// `[backend]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backend {
    /// Id of the plugin.
    pub plugin: String,
    /// Device, as the plugin names it: cpu, metal, cuda:0.
    pub device: String,
    /// The compute type.
    pub dtype: Dtype,
    /// Threads; 0 means all cores.
    pub threads: usize,
    /// The plugin's own options, checked and with defaults filled in.
    #[serde(flatten)]
    pub options: Map<String, Json>,
}

/// Resolves `[backend]`.
pub fn resolve(written: Written, notes: &Notes<'_>) -> Backend {
    // backend.plugin has a reported mistake: the id stays empty, so the options are not checked against the default plugin.
    let unknown = written.plugin.is_none() && notes.reported("backend.plugin");
    Backend {
        plugin: if unknown { String::new() } else { written.plugin() },
        device: written.device(),
        dtype: written.dtype.unwrap_or_default(),
        threads: written.threads(),
        options: Default::default(),
    }
}
