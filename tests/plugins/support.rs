//! What the tests of objectives share, here and in `plugins/`; they include this module by `#[path]`.
#![allow(dead_code, reason = "each crate that includes this module uses a part of it")]

use plugin_api::{
    objective::{Loss, ObjectivePlugin},
    options::{OptionMap, OptionSet},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Options as they cross.
pub fn options(json: Value) -> OptionMap {
    json.as_object().cloned().unwrap_or_default()
}

/// An instance with these options.
pub fn create<T: ObjectivePlugin>(json: Value) -> plugin_api::Result<T> {
    T::create(T::Options::parse(&options(json))?)
}

/// A metric's mean.
#[track_caller]
pub fn metric(loss: &Loss, name: &str) -> f64 {
    let part = loss.metrics.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no metric `{name}`"));
    part.value / part.weight
}

/// `tests/references/NAME`, or the file of that name in the folder that `TELOS_ORACLES` names.
pub fn file(name: &str) -> Value {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("tests/references"));
    let own = || above.into_iter().find(|folder| folder.is_dir()).unwrap();
    let folder = std::env::var_os("TELOS_ORACLES").map_or_else(own, PathBuf::from);
    serde_json::from_str(&std::fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// A list of numbers.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// A list of lists of numbers.
pub fn rows(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

/// Fails unless both are equal up to `relative`, a share of the expected number, and to eleven digits after the point.
#[track_caller]
pub fn near(what: &str, found: f64, expected: f64, relative: f64) {
    let allowed = relative * expected.abs() + 1e-11;
    assert!((found - expected).abs() <= allowed, "{what}: {found}, expected {expected}");
}
