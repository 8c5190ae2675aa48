//! A window in words.

use plugin_api::batch::{Batch, Scope, names};

/// How many numbers of an array are shown.
const SHOWN: usize = 12;

/// A window in one line: lengths, then every array with its content.
pub(in crate::objective) fn describe(window: &Batch<'_>) -> String {
    let offsets = window.offsets().unwrap_or_default();
    let lengths: Vec<String> = offsets.windows(2).map(|w| (w[1] - w[0]).to_string()).collect();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut text = match lengths.as_slice() {
        [] => "no sequence".to_owned(),
        [one] => format!("1 sequence of {one} token{}", if one == "1" { "" } else { "s" }),
        all => format!("{} sequence{} of {} tokens", all.len(), plural(all.len()), all.join(", ")),
    };
    let hidden = [names::OFFSETS, names::TARGET, names::POSITION, names::STEP, names::STEPS];
    let shown = |name: &str| !hidden.contains(&name);
    for array in window.arrays().iter().filter(|a| shown(&a.name) && a.scope != Scope(0)) {
        let numbers: Vec<String> = array.data.iter().take(SHOWN).map(|x| short(*x)).collect();
        let more = array.data.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(", {more} more") } else { String::new() };
        text.push_str(&format!("; {} [{}{more}]", array.name, numbers.join(", ")));
    }
    let number = |name| window.get(name).ok().and_then(|values| values.first().copied());
    match (number(names::STEP), number(names::STEPS)) {
        // Most losses do not read the step, and the first window is in step 1.
        (Some(step), Some(steps)) if step != 1.0 => text.push_str(&format!("; step {step} of {steps}")),
        _ => {}
    }
    text
}

/// Four digits are enough to rebuild the case.
fn short(x: f64) -> String {
    if x == x.trunc() && x.abs() < 1e6 { format!("{x}") } else { format!("{x:.4}") }
}
