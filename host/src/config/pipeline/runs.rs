//! The runs of a study: copies of the last stage that differ in the values of some keys.

use std::collections::{BTreeMap, BTreeSet};

use super::{Pipeline, SHOWN_STAGES, Stage, WHOLE, not_a_key_of_a_stage};
use crate::config::overrides::set;
use crate::config::sweep::draws::{Assignment, Swept};
use crate::keys::mistake::{Mistake, Place};
use crate::keys::tree::{Node, Value};

impl Pipeline {
    /// Replaces the last stage by runs, if there are any.
    pub(super) fn replace_last(&mut self, Swept { runs, mistakes }: Swept) {
        self.mistakes.extend(mistakes);
        if runs.is_empty() {
            return;
        }
        let Some(last) = self.stages.pop() else { return };
        for (name, values) in runs {
            let mut root = last.root.clone();
            rename(&mut root, format!("{}/{name}", self.name));
            let mut mistakes = last.mistakes.clone();
            let mut places = Vec::new();
            for Assignment { key, node } in values {
                let place = node.place.clone();
                let first = key.split('.').next().unwrap_or(&key);
                let done = match WHOLE.contains(&first) || first == "name" {
                    true => Err(match first {
                        "name" => "the runs of a study are named by their values".to_owned(),
                        _ => not_a_key_of_a_stage(first),
                    }),
                    false => set(&mut root, &key, node),
                };
                mistakes.extend(done.err().map(|message| Mistake::new(place.clone(), key, message)));
                places.push(place);
            }
            self.swept.push(places);
            self.stages.push(Stage { name, inputs: Vec::new(), root, mistakes });
        }
    }

    /// The file as the user named it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The place of the first value of run `index` of a study.
    pub fn place_of_run(&self, index: usize) -> Option<Place> {
        self.swept.get(index)?.first().cloned()
    }

    /// Mistakes of stages with the names of those stages. One that is in every stage is reported as it is, and so is one in a value of
    /// a study, whose place says enough; an unknown key of a study is reported once and not for each of its values.
    pub(super) fn named(&self, found: BTreeMap<Mistake, Vec<&str>>) -> Vec<Mistake> {
        let mut unknown: BTreeSet<(String, String)> = BTreeSet::new();
        let is_swept = |place: &Place| self.swept.iter().flatten().any(|swept| swept == place);
        let mut mistakes = Vec::new();
        for (mistake, stages) in found {
            let of_value = is_swept(&mistake.place);
            let is_unknown = of_value && mistake.message.starts_with("unknown key");
            if is_unknown && !unknown.insert((mistake.key.clone(), mistake.message.clone())) {
                continue;
            }
            mistakes.push(match of_value || stages.len() == self.stages.len() {
                true => mistake,
                false => Mistake { message: format!("in stage {}: {}", listed(&stages), mistake.message), ..mistake },
            });
        }
        mistakes
    }
}

/// Names, of which the first ones are written out.
pub fn listed(names: &[&str]) -> String {
    match names.len().checked_sub(SHOWN_STAGES) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN_STAGES].join(", ")),
        _ => names.join(", "),
    }
}

fn rename(root: &mut Node, name: String) {
    let Value::Table(table) = &mut root.value else { return };
    if let Some(entry) = table.0.iter_mut().find(|entry| entry.key == "name") {
        entry.node.value = Value::Text(name);
    }
}
