//! A teacher, or a model that reads answers behind other prompts, may have a shorter context than the policy, as long as every
//! row fits into it.

use super::{ContextModel, Roles};
use crate::{
    config::{Mistakes, experiment::Data},
    data::TrainingData,
    model::Model,
    objectives::Objectives,
    setup::Setup,
    train::memory::largest_rows::all_rows,
};

impl Roles {
    /// Refuses a teacher, or a model of `[context]`, whose context is too short for the longest row; sequences that objectives
    /// compose are limited to it.
    pub fn check_lengths(
        &self,
        setup: &Setup,
        objectives: &mut Objectives,
        data: &TrainingData,
        mistakes: &mut Mistakes,
    ) {
        let context = match &self.context {
            Some(ContextModel::Frozen(model)) => Some(&**model),
            _ => None,
        };
        let models: [(&str, Option<&Model>); 2] = [("teacher.from", self.teacher.as_ref()), ("context.from", context)];
        let policy = setup.config.context;
        let mut shortest = policy;
        for (key, model) in models {
            let Some(own) = model.map(|model| model.config().context).filter(|own| *own < policy) else { continue };
            let longest = longest(setup, objectives, data);
            if longest as u64 > own && mistakes.are_free(&[key]) {
                let why = format!(
                    "its context of {own} tokens is shorter than the longest row, which takes {longest} (the policy's context is \
                     {policy}): {}",
                    remedy(setup, objectives, own)
                );
                mistakes.refuse(key, why);
            }
            shortest = shortest.min(own);
        }
        if shortest < policy {
            objectives.limit(setup.config.vocab, shortest as usize);
        }
    }
}

/// What makes rows short enough.
fn remedy(setup: &Setup, objectives: &Objectives, own: u64) -> String {
    let other = "name a model with a longer context";
    if objectives.needs().rollouts {
        return format!("{other}, or lower rollout.max_new_tokens");
    }
    match &setup.experiment().data {
        Data::Jsonl(_) => format!("set data.max_length = {own}, or {other}"),
        _ => format!("{other}, or a policy with a context of {own}"),
    }
}

/// The positions that the longest sequence of a run takes: of a row on either side, behind its own prompt or the other one, with
/// the longest answer.
fn longest(setup: &Setup, objectives: &Objectives, data: &TrainingData) -> usize {
    let answer = setup.experiment().rollout.as_ref().filter(|_| objectives.needs().rollouts);
    let answer = answer.map_or(0, |rollout| rollout.max_new_tokens);
    let sides = [&*data.train, &*data.held_out].map(|side| {
        let rows = all_rows(setup, objectives, side);
        let spans = side.in_order(rows.context, rows.prefix.is_some()).into_iter();
        let extents = spans.flat_map(|span| side.sequences(span, rows.prefix, 0)).map(|sequence| sequence.extent());
        extents.max().unwrap_or(0)
    });
    let more = usize::from(objectives.needs().reads_last());
    (sides[0].max(sides[1]) + answer + more).min(setup.config.context as usize)
}
