//! The smallest window that still breaks a law: fewer sequences first, then fewer tokens of each.

use super::{
    case::Case,
    outcome::{Fault, Outcome},
    windows::{Cut, describe, sequences},
};
use plugin_api::export::guard;

/// The fault of the smallest window that breaks `law` in the same way, and the window in words; the first fault if no single
/// window breaks it.
pub(super) fn smallest(
    case: &Case<'_>,
    name: &str,
    law: &dyn Fn(&Case<'_>) -> Outcome,
    first: Fault,
) -> (Fault, Option<String>) {
    let broken = |draw: u64, cut: Option<Cut>| {
        let smaller = case.only(draw, cut);
        let outcome = guard::catch("", name, || Ok(law(&smaller)));
        let fault = match outcome {
            Ok(outcome) => outcome.err()?,
            Err(panic) => Fault::from(panic.to_string()),
        };
        (kind(&fault) == kind(&first)).then_some(fault)
    };
    let Some((draw, mut fault)) = case.windows().find_map(|draw| Some((draw, broken(draw, None)?))) else {
        return (first, None);
    };
    let found = (|| {
        let window = case.only(draw, None).data(draw);
        let mut cut = Cut::whole(&window).ok()?;
        for unit in sequences::units(&window).ok()? {
            let fewer = cut.without(&unit);
            if !fewer.is_empty()
                && let Some(same) = broken(draw, Some(fewer.clone()))
            {
                (cut, fault) = (fewer, same);
            }
        }
        for sequence in 0..cut.sequences() {
            while cut.length(sequence) > 1
                && let Some(same) = broken(draw, Some(cut.shorter(sequence)))
            {
                (cut, fault) = (cut.shorter(sequence), same);
            }
        }
        Some(cut)
    })();
    let Some(cut) = found else { return (fault, None) };
    if let Some(shown) = fault.at.clone() {
        return (fault, Some(shown));
    }
    let smaller = case.only(draw, Some(cut));
    let ready = guard::catch("", "prepare", || smaller.ready(draw).map(|(_, batch)| batch));
    let window = ready.unwrap_or_else(|_| smaller.data(draw));
    (fault, Some(describe(&window)))
}

/// The text of a fault before its first number: a smaller window must break the law in the same way.
fn kind(fault: &Fault) -> &str {
    fault.text.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default()
}
