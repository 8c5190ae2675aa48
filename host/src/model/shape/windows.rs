//! Sliding windows of attention, as config.json gives them.

use serde_json::{Value, json};

use super::keys::Reader;
use crate::error::Result;
use crate::families::family::Windows;

const WINDOW: &str = "sliding_window";
const SWITCH: &str = "use_sliding_window";
const FULL_LAYERS: &str = "max_window_layers";
const TYPES: &str = "layer_types";
/// Name of layers with a window.
pub(super) const SLIDING: &str = "sliding_attention";
/// Name of layers without one.
pub(super) const FULL: &str = "full_attention";

/// Reads each layer's window, 0 for none; empty if no layer has one.
///
/// # Errors
/// A request error that names file, key and value.
pub(super) fn read(read: &Reader<'_>, windows: Windows, layers: u64, rotated: &[bool]) -> Result<Vec<u64>> {
    if layers > MOST_LAYERS {
        return Ok(Vec::new());
    }
    // Without a window, what `layer_types` says has no effect.
    let is_null = read.map.get(WINDOW).is_some_and(Value::is_null);
    let default = match windows {
        Windows::Never => return Ok(Vec::new()),
        Windows::EveryLayer { default } => default,
        Windows::Switched { .. } | Windows::Unrotated if !read.flag(SWITCH, false)? => return Ok(Vec::new()),
        Windows::Switched { default, .. } => Some(default),
        Windows::Unrotated => None,
        Windows::Alternating { .. } if is_null => {
            return Err(read.wrong(WINDOW, &Value::Null, "an integer from 1: some layers have a window"));
        }
        Windows::Alternating { default, .. } => Some(default),
    };
    let window = read.optional_size(WINDOW)?.or(default).filter(|_| !is_null);
    let Some(window) = window else { return Ok(Vec::new()) };
    let slides: Vec<bool> = match (read.get(TYPES), windows) {
        (Some(value), Windows::EveryLayer { .. }) => {
            let types = types(read, value, layers)?;
            if types.contains(&false) {
                // Transformers ignores the types in these families; other programs do not.
                let hint = format!("this family has `{WINDOW}` in every layer; set it to null if no layer has one");
                return Err(read.refuse(TYPES, value).with_hint(hint));
            }
            types
        }
        (Some(value), _) => types(read, value, layers)?,
        (None, Windows::Unrotated) => (0..layers as usize).map(|layer| rotated.get(layer) == Some(&false)).collect(),
        (None, Windows::Alternating { period, period_key, .. }) => {
            let given = period_key.map(|key| read.optional_size(key)).transpose()?.flatten();
            alternating(given.unwrap_or(period), layers)
        }
        (None, Windows::Switched { full_layers, .. }) => {
            let full = match read.get(FULL_LAYERS) {
                Some(value) => value.as_u64().ok_or_else(|| read.wrong(FULL_LAYERS, value, "an integer from 0"))?,
                None => full_layers,
            };
            (0..layers).map(|layer| layer >= full).collect()
        }
        (None, _) => (0..layers).map(|_| true).collect(),
    };
    if !slides.contains(&true) {
        return Ok(Vec::new());
    }
    Ok(slides.into_iter().map(|slides| if slides { window } else { 0 }).collect())
}

/// More layers are refused when the config is checked.
pub(super) const MOST_LAYERS: u64 = 4096;

/// Whether each layer has a window, if every `period`-th has none.
fn alternating(period: u64, layers: u64) -> Vec<bool> {
    (1..=layers).map(|layer| !layer.is_multiple_of(period)).collect()
}

/// Returns each layer's window in a model with fresh weights, 0 for none; empty if no layer has one.
pub(super) fn fresh(windows: Windows, layers: u64) -> Vec<u64> {
    let Windows::Alternating { default, period, .. } = windows else { return Vec::new() };
    let slides = alternating(period, layers);
    if !slides.contains(&true) {
        return Vec::new();
    }
    slides.into_iter().map(|slides| if slides { default } else { 0 }).collect()
}

fn types(read: &Reader<'_>, value: &Value, layers: u64) -> Result<Vec<bool>> {
    let one = |kind: &Value| match kind.as_str() {
        Some(SLIDING) => Some(true),
        Some(FULL) => Some(false),
        _ => None,
    };
    let all: Option<Vec<bool>> = value.as_array().and_then(|list| list.iter().map(one).collect());
    let expected = format!("\"{FULL}\" or \"{SLIDING}\" for each of {layers} layers");
    all.filter(|all| all.len() as u64 == layers).ok_or_else(|| read.wrong(TYPES, value, &expected))
}

/// Adds the keys that `read` reads.
pub(super) fn write(windows: Windows, of_layers: &[u64], layers: u64, put: &mut impl FnMut(&str, Value)) {
    let window = of_layers.iter().copied().max().filter(|window| *window > 0);
    let kind = |window: u64| if window > 0 { SLIDING } else { FULL };
    let kinds =
        || json!((0..layers as usize).map(|i| kind(of_layers.get(i).copied().unwrap_or(0))).collect::<Vec<_>>());
    match windows {
        Windows::Never => return,
        Windows::Alternating { default, .. } => {
            put(WINDOW, json!(window.unwrap_or(default)));
            return put(TYPES, kinds());
        }
        Windows::Unrotated => {
            put(WINDOW, json!(window));
            put(SWITCH, json!(window.is_some()));
            return put(TYPES, kinds());
        }
        Windows::EveryLayer { .. } => put(WINDOW, json!(window)),
        Windows::Switched { .. } => {
            put(WINDOW, json!(window));
            put(SWITCH, json!(window.is_some()));
            // transformers 4 has no types: there all layers from a number on have the window.
            let full = of_layers.iter().position(|window| *window > 0).map_or(layers, |full| full as u64);
            put(FULL_LAYERS, json!(full));
        }
    }
    if window.is_some() && of_layers.contains(&0) {
        put(TYPES, kinds());
    }
}
