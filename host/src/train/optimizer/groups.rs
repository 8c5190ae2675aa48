//! Learning rate and weight decay of each parameter: the optimizer's, or those of its group.

use glob::Pattern;
use plugin_api::backend::ops::FLAT_ALIGN;

use crate::{
    config::experiment::{Group, Optimizer as Settings},
    error::{Error, Result},
    model::params::{Layout, Parameter},
};

/// Consecutive parameters of the flat buffer with one rate and one decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// First unit of [`FLAT_ALIGN`] elements.
    pub start: u64,
    /// The settings.
    pub rule: Rule,
}

/// How one parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
}

impl Rule {
    /// A parameter that keeps its value.
    pub const FROZEN: Rule = Rule { lr_scale: 0.0, weight_decay: 0.0 };
}

/// Checks that every group matches a parameter of the models that learn.
///
/// # Errors
/// Request error naming a group that matches none.
pub fn check_groups(layouts: &[&Layout], settings: &Settings) -> Result<()> {
    let patterns = patterns(settings)?;
    let group = |name: &str| patterns.iter().position(|pattern| pattern.matches(name));
    let names = || layouts.iter().flat_map(|layout| layout.parameters()).map(|parameter| parameter.name.as_str());
    let used: Vec<usize> = names().filter_map(group).collect();
    let Some(index) = (0..patterns.len()).find(|index| !used.contains(index)) else { return Ok(()) };
    let some: Vec<&str> = names().take(5).collect();
    Err(Error::request(format!(
        "train.optimizer.groups.{index}.match: \"{}\" matches no parameter that an earlier group has not taken",
        settings.groups[index].pattern
    ))
    .with_hint(format!("parameters are named like {}", some.join(", "))))
}

fn patterns(settings: &Settings) -> Result<Vec<Pattern>> {
    let pattern = |group: &Group| {
        Pattern::new(&group.pattern).map_err(|e| Error::request(format!("train.optimizer.groups: {e}")))
    };
    settings.groups.iter().map(pattern).collect()
}

/// Returns the rule of each parameter, in their order. A parameter belongs to the first group whose pattern matches its name; outside
/// all groups, matrices decay and vectors do not.
///
/// # Errors
/// Request error for a group's pattern that is not a valid glob.
pub fn rules(layout: &Layout, settings: &Settings) -> Result<Vec<Rule>> {
    let patterns = patterns(settings)?;
    let rule = |parameter: &Parameter| {
        let usual = if parameter.matrix { settings.weight_decay } else { 0.0 };
        match patterns.iter().position(|pattern| pattern.matches(&parameter.name)) {
            Some(index) => {
                let group = &settings.groups[index];
                Rule { lr_scale: group.lr_scale, weight_decay: group.weight_decay.unwrap_or(usual) }
            }
            None => Rule { lr_scale: 1.0, weight_decay: usual },
        }
    };
    Ok(layout.parameters().iter().map(rule).collect())
}

/// Merges neighbours of equal rules.
pub fn segments(layout: &Layout, rules: &[Rule]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (parameter, rule) in layout.parameters().iter().zip(rules) {
        if segments.last().is_none_or(|last| last.rule != *rule) {
            segments.push(Segment { start: parameter.offset / FLAT_ALIGN, rule: *rule });
        }
    }
    segments
}
