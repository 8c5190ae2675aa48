//! The law of `request`: `prepare` is called again with more prompts, from the same state, until it requests nothing.

use crate::objective::{
    case::Case,
    compare::{Alike, numbers},
    outcome::{Fault, Held, Outcome, fault},
    windows::{Values, sequences},
};
use plugin_api::{
    batch::{Batch, Scope, names},
    contract,
    objective::Objective,
};
use std::collections::BTreeSet;

/// Rounds of answers with different rewards after which nothing may be requested any more.
const ROUNDS: u64 = 16;
/// The most prompts that are drawn in a round.
const MOST: usize = 256;

/// If `prepare` requests prompts, it returns the same for the same answers from the same state, on any instance, and requests
/// nothing once there are many answers with different rewards.
pub(in crate::objective) fn request(case: &Case<'_>) -> Outcome {
    let (mut prompts, mut rounds) = (0, 0);
    for draw in case.windows().filter(|_| case.rollouts()) {
        let window = case.fill(&case.data(draw), Values::Random(draw))?;
        let drawn = rollout(case, draw, case.arrays_for_prepare(&window))?;
        (prompts, rounds) = (prompts + drawn.0, rounds + drawn.1);
    }
    Ok(Held::note(match rounds {
        0 => String::new(),
        _ => format!("{prompts} prompts requested in {rounds} rounds"),
    }))
}

/// Draws a rollout as the host does. Returns the number of prompts that were requested and the rounds in which they were drawn.
fn rollout(case: &Case<'_>, draw: u64, first: Batch<'static>) -> Result<(usize, u64), Fault> {
    let (mut objective, mut window, mut prompts) = (case.instance()?, first, 0);
    let before = objective.state()?;
    for round in 0..ROUNDS {
        let made = prepared(objective.as_mut(), &window, "")?;
        let Some(wanted) = made.find(names::REQUEST).and_then(|array| array.data.first()).map(|n| *n as usize) else {
            return Ok((prompts, round));
        };
        let shown = |fault: Fault| fault.shown_by(&window);
        let after = objective.state()?;
        put_back(objective.as_mut(), &before)?;
        let again = prepared(objective.as_mut(), &window, "again from the same state: ")?;
        same(&made, &again, "a second call from the same state").map_err(shown)?;
        if objective.state()? != after {
            return Err(shown(Fault::from("a second `prepare` from the same state leaves another state".to_owned())));
        }
        let mut other = case.instance()?;
        put_back(other.as_mut(), &before)?;
        same(&made, &prepared(other.as_mut(), &window, "")?, "an instance that saw no earlier answers")
            .map_err(shown)?;
        if wanted == 0 {
            return Ok((prompts, round));
        }
        put_back(objective.as_mut(), &before)?;
        let keep = made.find(names::KEEP).map(|array| array.data.to_vec());
        let kept = |s: &usize| keep.as_ref().is_none_or(|keep| keep[*s] != 0.0);
        // A prompt of which one answer is kept comes back with all of them.
        let group = window.get(names::GROUP)?;
        let groups: BTreeSet<u64> = (0..group.len()).filter(kept).map(|s| group[s].to_bits()).collect();
        let kept: Vec<usize> = (0..group.len()).filter(|s| groups.contains(&group[*s].to_bits())).collect();
        let more = more(case, draw, round, wanted.min(MOST))?;
        window = sequences::append(&sequences::select(&window, &kept)?, &more)?;
        prompts += wanted.min(MOST);
    }
    fault(format!(
        "after {ROUNDS} rounds in which all answers to a prompt had different rewards it still requests prompts: every rollout \
         would draw `rollout.max_prompts`"
    ))
}

/// The arrays from `prepare`, which the host would accept.
fn prepared(objective: &mut dyn Objective, window: &Batch<'_>, what: &str) -> Result<Batch<'static>, Fault> {
    let made = objective.prepare(window)?;
    contract::prepared(window, &made, true)
        .map_err(|why| Fault::from(format!("{what}`prepare`: {}", why.text)).shown_by(window))?;
    Ok(made)
}

/// Restores a state as the host does: an objective without state has an empty one.
pub(super) fn put_back(objective: &mut dyn Objective, state: &[u8]) -> Result<(), Fault> {
    match state.is_empty() {
        true => Ok(()),
        false => Ok(objective.restore(state)?),
    }
}

fn same(made: &Batch<'_>, again: &Batch<'_>, what: &str) -> Result<(), Fault> {
    if made.arrays().len() != again.arrays().len() {
        return fault(format!("{what} returns {} arrays, not {}", again.arrays().len(), made.arrays().len()));
    }
    made.arrays().iter().try_for_each(|array| {
        let what = format!("{what}: prepared `{}`", array.name);
        numbers(&what, &array.data, again.get(&array.name)?, Alike::Exactly).map(drop)
    })
}

/// Answers to `count` further prompts, several to each, with different rewards and the statistics of the same models.
fn more(case: &Case<'_>, draw: u64, round: u64, count: usize) -> Result<Batch<'static>, Fault> {
    let number = 1000 * (round + 1) + draw;
    // The rewards of a window's first group are equal, and its last group has a single answer.
    let generator = case.generator().with_units(count + 2);
    let drawn = generator.data(case.manifest(), number);
    let units = sequences::units(&drawn)?;
    let chosen = units.get(1..units.len() - 1).unwrap_or_default().concat();
    let drawn = case.fill(&sequences::select(&drawn, &chosen)?, Values::Random(number))?;
    let group = drawn.get(names::GROUP)?.iter().map(|group| group + 1e6 * (round + 1) as f64).collect::<Vec<f64>>();
    Ok(case.arrays_for_prepare(&drawn.with(names::GROUP, Scope::SEQUENCE, group)))
}
