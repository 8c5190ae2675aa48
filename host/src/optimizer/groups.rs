//! `[[train.optimizer.groups]]`: learning rate and weight decay of each parameter, from its group or else from the optimizer.

use glob::Pattern;
use plugin_api::backend::ops::FLAT_ALIGN;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    keys::{Form, notes::Notes, table},
    model::params::{Parameter, Table},
};

table! {
    /// parameters with their own learning rate or decay; the first group that matches a parameter is used
    pub struct Written at "train.optimizer.groups": Form::Tables, default "[]",
        example [{ match = "*embed*", lr_scale = 0.1 }] {
        /// glob on the parameter's name
        pattern as "match": String, Form::Text, example "*embed*";
        /// factor on the learning rate; 0 freezes
        lr_scale: f64 = 1.0, Form::FROM_ZERO, example 0.1;
        /// weight decay of this group, including its vectors
        weight_decay: f64, Form::FROM_ZERO, default "that of the optimizer", example 0.0;
    }
}

/// Parameters with their own rate or decay.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// A valid glob that matches parameter names.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Factor on the learning rate.
    pub lr_scale: f64,
    /// Weight decay, also for vectors; absent: the optimizer's rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

/// Resolves all groups.
pub fn resolve(written: &[Written], notes: &mut Notes<'_>) -> Vec<Group> {
    let mut groups = Vec::new();
    for (index, group) in written.iter().enumerate() {
        let key = format!("train.optimizer.groups.{index}");
        match group.pattern.as_deref().map(glob::Pattern::new) {
            Some(Err(error)) => {
                notes.refuse(&format!("{key}.match"), format!("not a valid glob: {error}; for example \"*embed*\""))
            }
            Some(Ok(_)) if group.lr_scale.is_none() && group.weight_decay.is_none() => {
                notes.refuse(&key, "unused: the group sets neither lr_scale nor weight_decay");
            }
            Some(Ok(_)) => {}
            None => notes.missing(
                &format!("{key}.match"),
                "a pattern of parameter names is needed; for example match = \"*embed*\"",
            ),
        }
        groups.push(Group {
            pattern: group.pattern.clone().unwrap_or_default(),
            lr_scale: group.lr_scale(),
            weight_decay: group.weight_decay,
        });
    }
    groups
}

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

/// Checks that every group matches a parameter of the trained models, and that they do not freeze all parameters.
///
/// # Errors
/// Request error naming a group that matches none, or the groups that freeze all.
pub fn check_groups(layouts: &[&Table], groups: &[Group]) -> Result<()> {
    let patterns = patterns(groups)?;
    let group = |name: &str| patterns.iter().position(|pattern| pattern.matches(name));
    let names = || layouts.iter().flat_map(|layout| layout.parameters()).map(|parameter| parameter.name.as_str());
    let used: Vec<usize> = names().filter_map(group).collect();
    let is_frozen = |name: &str| group(name).is_some_and(|index| groups[index].lr_scale == 0.0);
    if names().all(is_frozen) {
        let what = "train.optimizer.groups: lr_scale = 0 freezes every parameter, so nothing would be trained";
        return Err(Error::request(what).with_hint("leave the parameters that are to be trained out of these groups"));
    }
    let Some(index) = (0..patterns.len()).find(|index| !used.contains(index)) else { return Ok(()) };
    let some: Vec<&str> = names().take(5).collect();
    Err(Error::request(format!(
        "train.optimizer.groups.{index}.match: \"{}\" matches no parameter outside the earlier groups",
        groups[index].pattern
    ))
    .with_hint(format!("names of parameters: {}, ...", some.join(", "))))
}

fn patterns(groups: &[Group]) -> Result<Vec<Pattern>> {
    let pattern = |group: &Group| {
        Pattern::new(&group.pattern).map_err(|e| Error::request(format!("train.optimizer.groups: {e}")))
    };
    groups.iter().map(pattern).collect()
}

/// Returns the rule of each parameter, in their order. A parameter belongs to the first group whose pattern matches its name; outside
/// all groups, matrices decay by `weight_decay` and vectors do not.
///
/// # Errors
/// Request error for a group's pattern that is not a valid glob.
pub fn rules(layout: &Table, groups: &[Group], weight_decay: f64) -> Result<Vec<Rule>> {
    let patterns = patterns(groups)?;
    let rule = |parameter: &Parameter| {
        let usual = if parameter.matrix { weight_decay } else { 0.0 };
        match patterns.iter().position(|pattern| pattern.matches(&parameter.name)) {
            Some(index) => {
                let group = &groups[index];
                Rule { lr_scale: group.lr_scale, weight_decay: group.weight_decay.unwrap_or(usual) }
            }
            None => Rule { lr_scale: 1.0, weight_decay: usual },
        }
    };
    Ok(layout.parameters().iter().map(rule).collect())
}

/// Merges neighbours of equal rules.
pub fn segments(layout: &Table, rules: &[Rule]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (parameter, rule) in layout.parameters().iter().zip(rules) {
        if segments.last().is_none_or(|last| last.rule != *rule) {
            segments.push(Segment { start: parameter.offset / FLAT_ALIGN, rule: *rule });
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Layout, ModelConfig};

    /// Catches groups that freeze every parameter, a refusal of groups that leave one, and a group that matches none.
    #[test]
    fn at_least_one_parameter_is_trained() {
        let config = r#"{"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 12, "vocab_size": 11, "max_position_embeddings": 8, "tie_word_embeddings": true}"#;
        let layout = Layout::new(&ModelConfig::parse(config, "config.json").unwrap()).unwrap();
        let check = |groups: &[(&str, f64)]| {
            let group = |(pattern, lr_scale): &(&str, f64)| {
                let pattern = (*pattern).to_owned();
                Group { pattern, lr_scale: *lr_scale, weight_decay: None }
            };
            check_groups(&[&layout], &groups.iter().map(group).collect::<Vec<_>>())
        };
        check(&[]).unwrap();
        check(&[("*embed*", 0.0)]).unwrap();
        check(&[("*norm*", 1.0), ("*", 0.0)]).unwrap();
        assert!(check(&[("*", 0.0)]).unwrap_err().report().contains("freezes every parameter"));
        assert!(check(&[("*embed*", 0.0), ("*", 0.0)]).unwrap_err().report().contains("freezes every parameter"));
        assert!(check(&[("nothing", 0.5)]).unwrap_err().report().contains("matches no parameter"));
    }
}
