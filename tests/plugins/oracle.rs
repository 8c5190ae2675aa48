//! Files of `tests/references` for the tests of the objectives here, which include this module by `#[path]`.

use serde_json::Value;
use std::path::PathBuf;

/// `tests/references/NAME`, or the file of that name in the folder that `TELOS_ORACLES` names.
pub fn file(name: &str) -> Value {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../references");
    let folder = std::env::var_os("TELOS_ORACLES").map_or_else(beside, PathBuf::from);
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

/// Fails unless both are equal to nine digits.
#[track_caller]
pub fn near(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs() + 1e-11, "{what}: {found}, expected {expected}");
}
