//! The laws of an instance over time: calls are repeatable, state changes only where allowed, and counts depend only on data.

use super::requests::put_back;
use crate::objective::{
    case::{Case, WINDOWS},
    compare::{Alike, Flat},
    outcome::{Fault, Held, Outcome, fault, holds},
    windows::{Values, sequences},
};
use plugin_api::{
    Code,
    batch::Batch,
    contract,
    manifest::{Normaliser, TermSpec},
    objective::{Loss, Objective, Verdict},
};

/// A custom normaliser exists for its term, is known before the forward pass, and adds up over the parts of a split window.
pub(in crate::objective) fn normalisers(case: &Case<'_>) -> Outcome {
    let custom = |term: &&TermSpec| *case.requirements.normaliser(term).0 == Normaliser::CUSTOM;
    let custom = case.manifest().terms.iter().filter(custom);
    let custom: Vec<&str> = custom.map(|t| t.name.as_str()).collect();
    if custom.is_empty() {
        return holds();
    }
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let data = batch.arrays().iter().filter(|a| !case.requirements.statistics.iter().any(|s| *s == a.name));
        let data = data.cloned().fold(Batch::new(), Batch::with_array);
        let whole = objective.weigh(&data).map_err(|e| Fault::from(format!("`weigh` before the forward pass: {e}")))?;
        for name in &custom {
            let weight = weight_of(&whole, name)?;
            if !(weight.is_finite() && weight >= 0.0) {
                return fault(format!("`weigh` returns {weight} for `{name}`"));
            }
            if case.coupled() {
                continue;
            }
            let mut sum = 0.0;
            for piece in case.units(&data)? {
                sum += weight_of(&objective.weigh(&sequences::select(&data, &piece)?)?, name)?;
            }
            if !Alike::Rounding.holds(weight, sum) {
                return fault(format!("`weigh` returns {weight} for `{name}`, its pieces {sum}"));
            }
        }
        contract::weights(case.manifest(), &case.requirements, &whole)
            .map_err(|why| Fault::from(format!("`weigh`: {}", why.text)))?;
    }
    holds()
}

fn weight_of(weights: &[(String, f64)], term: &str) -> Result<f64, Fault> {
    match weights.iter().find(|(name, _)| name == term) {
        Some((_, weight)) => Ok(*weight),
        None => fault(format!("`weigh` returns nothing for `{term}`")),
    }
}

/// The same call returns the same bits, and calls change nothing.
pub(in crate::objective) fn repeatable(case: &Case<'_>) -> Outcome {
    for draw in case.windows() {
        let (objective, batch) = case.ready(draw)?;
        let (other, other_batch) = case.ready(draw)?;
        let before = objective.state()?;
        let first = objective.loss(&batch)?;
        for (what, again) in
            [("a second call", objective.loss(&batch)?), ("another instance", other.loss(&other_batch)?)]
        {
            bits(case, &first, &again, &batch).map_err(|fault| fault.within(what))?;
        }
        if objective.state()? != before {
            return fault("`loss` changed the state");
        }
    }
    holds()
}

fn bits(case: &Case<'_>, a: &Loss, b: &Loss, batch: &Batch<'_>) -> Result<(), Fault> {
    let manifest = case.manifest();
    Flat::of(manifest, a, batch)?.same(&Flat::of(manifest, b, batch)?, Alike::Exactly).map(drop)
}

/// An instance restored from another's state continues as that one does.
pub(in crate::objective) fn state(case: &Case<'_>) -> Outcome {
    let at_first = case.instance()?.state()?;
    let (mut old, _) = case.ready(case.first())?;
    step(case, old.as_mut(), 0.9)?;
    step(case, old.as_mut(), 0.2)?;
    let saved = old.state()?;
    if at_first.is_empty() != saved.is_empty() {
        let (first, later) = (at_first.len(), saved.len());
        return fault(format!(
            "`state` returns {first} bytes at first and {later} after two steps; an objective with a state returns it from the \
             beginning, never empty"
        ));
    }
    let mut new = case.instance()?;
    put_back(new.as_mut(), &saved).map_err(|fault| fault.within("its own state is refused"))?;
    if new.state()? != saved {
        return fault("the restored instance has another state than the saved one");
    }
    for round in 1..=WINDOWS {
        let draw = case.first() + round;
        let rollouts = case.fill(&case.data(draw), Values::Random(draw))?;
        let [a, b] = [run_window(case, old.as_mut(), &rollouts)?, run_window(case, new.as_mut(), &rollouts)?];
        bits(case, &a.0, &b.0, &a.1).map_err(|fault| fault.within(&format!("round {round} after the restore")))?;
        let verdicts = [step(case, old.as_mut(), 0.4)?, step(case, new.as_mut(), 0.4)?];
        if verdicts[0] != verdicts[1] || old.state()? != new.state()? {
            return fault(format!("round {round} after the restore: `after_step` gives another verdict or state"));
        }
    }
    refuses_invalid_state(case, &saved)?;
    let growth = growth(case)?;
    Ok(Held::note(if saved.is_empty() { growth } else { format!("{} bytes{growth}", saved.len()) }))
}

/// Steps after which the size of the state is compared.
const STEPS: u64 = 8;

/// A note if the state is larger after every step: checkpoints would then grow with the run.
fn growth(case: &Case<'_>) -> Result<String, Fault> {
    let mut objective = case.instance()?;
    let mut sizes = Vec::new();
    for round in 0..STEPS {
        let draw = case.first() + round;
        let window = case.fill(&case.data(draw), Values::Random(draw))?;
        run_window(case, objective.as_mut(), &window)?;
        step(case, objective.as_mut(), 0.5)?;
        sizes.push(objective.state()?.len());
    }
    let [first, .., last] = sizes[..] else { return Ok(String::new()) };
    let grows = sizes.windows(2).all(|pair| pair[0] < pair[1]);
    Ok(if grows {
        format!("; the state grows with every step: {first} bytes after one, {last} after {STEPS}")
    } else {
        String::new()
    })
}

/// Runs all calls of a window on one instance.
fn run_window(
    case: &Case<'_>,
    objective: &mut dyn Objective,
    window: &Batch<'_>,
) -> Result<(Loss, Batch<'static>), Fault> {
    let batch = case.prepared(objective, window)?;
    Ok((objective.loss(&batch)?, batch))
}

fn step(case: &Case<'_>, objective: &mut dyn Objective, value: f64) -> Result<Verdict, Fault> {
    let manifest = case.manifest();
    let terms = manifest.terms.iter().map(|term| &term.name);
    let names = terms.chain(manifest.metrics.iter().map(|metric| &metric.name));
    let metrics: Vec<_> = names.map(|name| (name.clone(), value)).collect();
    let verdict = objective.after_step(&metrics)?;
    contract::verdict(verdict, case.rollouts()).map_err(|why| Fault::from(format!("`after_step`: {}", why.text)))?;
    Ok(verdict)
}

/// Bytes that are not a state are refused.
fn refuses_invalid_state(case: &Case<'_>, saved: &[u8]) -> Result<(), Fault> {
    let longer = [saved, b"\xff{ no state"].concat();
    let shorter = saved.split_last().map(|(_, rest)| rest.to_vec());
    for bytes in [Some(longer), shorter.filter(|s| !s.is_empty())].into_iter().flatten() {
        match case.instance()?.restore(&bytes) {
            Ok(()) => return fault(format!("{} bytes that are not its state are accepted", bytes.len())),
            Err(e) if e.code != Code::STATE => {
                return fault(format!("bytes that are not its state are refused, but not with Code::STATE: {e}"));
            }
            Err(_) => {}
        }
    }
    Ok(())
}
