//! `eval.samples` and `eval.pass_at`: what pass@k is measured on.

use crate::config::experiment::PassAt;
use crate::keys::notes::Notes;

/// Both keys, given `eval.generate` and the temperature at which answers are drawn.
pub fn pass_at(
    samples: Option<usize>,
    pass_at: Option<Vec<usize>>,
    generate: Option<u64>,
    temperature: f64,
    notes: &mut Notes<'_>,
) -> Option<PassAt> {
    if generate.is_none() {
        if !notes.reported("eval.generate") {
            let why = "without eval.generate nothing is answered";
            notes.unused("eval.samples", &samples, why);
            notes.unused("eval.pass_at", &pass_at, why);
        }
        return None;
    }
    // A mistake in one of the keys says nothing about the other.
    if notes.reported("eval.samples") || notes.reported("eval.pass_at") {
        return None;
    }
    let several = samples.filter(|samples| *samples > 1);
    let mut pass_at = pass_at.or(several.map(|samples| vec![1, samples]))?;
    pass_at.sort_unstable();
    pass_at.dedup();
    let samples = samples.unwrap_or(1);
    if let Some(most) = pass_at.last().filter(|most| **most > samples) {
        let why = format!("{most} is more than eval.samples = {samples}; draw more, samples = {most}, or leave it out");
        notes.refuse("eval.pass_at", why);
    } else if several.is_some() && temperature == 0.0 {
        let why = "at eval.temperature = 0 all answers to a prompt are the same; for example temperature = 0.8";
        notes.refuse("eval.samples", format!("unused: {why}"));
    }
    Some(PassAt { samples, pass_at })
}
