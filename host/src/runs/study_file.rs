//! The plan of a study: `study.json` in its folder. It names the stages and runs, whose folders say how far they are.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::disk::{read_json, write_json};
use super::folder::STUDY_FILE;
use crate::error::{Error, Result};

/// A study's plan, and what failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyFile {
    /// Its name.
    pub name: String,
    /// How combinations were chosen: grid, list, random, latin-hypercube.
    pub method: String,
    /// The metric by which arms are compared, after min: or max:.
    pub metric: String,
    /// The keys that differ between arms.
    pub keys: Vec<String>,
    /// Stages that are run once, before the runs.
    pub stages: Vec<String>,
    /// Successive halving, if arms are stopped early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halving: Option<Rungs>,
    /// The arms in order.
    pub arms: Vec<ArmPlan>,
    /// Why stages and runs failed, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, String>,
}

/// Successive halving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rungs {
    /// Steps of each rung; the last is that of a whole run.
    pub steps: Vec<u64>,
    /// The best 1/factor of a rung continue.
    pub factor: u64,
    /// What decides, after min: or max:.
    pub metric: String,
}

/// An arm: one combination of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmPlan {
    /// Its name.
    pub name: String,
    /// The keys that it sets, with their values.
    pub values: Map<String, Value>,
    /// Its runs.
    pub runs: Vec<RunPlan>,
}

impl ArmPlan {
    /// The keys that it sets, with their values: `objective.beta = 0.1, train.steps = 9`; empty if it sets none.
    pub fn assignments(&self) -> String {
        self.values.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// A run of an arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// Its name, and that of its folder.
    pub name: String,
    /// Its seed; `None` for the experiment's own.
    pub seed: Option<i64>,
}

impl StudyFile {
    /// Reads the plan of the study in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<StudyFile>> {
        read_json(&folder.join(STUDY_FILE)).map_err(|error: Error| error.with_hint("restore the file from a copy"))
    }

    /// Writes it to the study in `folder`.
    ///
    /// # Errors
    /// The path and the system's error.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(STUDY_FILE), self)
    }

    /// Its runs in order.
    pub fn runs(&self) -> impl Iterator<Item = &RunPlan> {
        self.arms.iter().flat_map(|arm| &arm.runs)
    }

    /// A line for each stage and run that failed: its name, the values of its arm, and why.
    pub fn failures(&self) -> Vec<String> {
        let line = |(name, why): (&String, &String)| {
            let arm = self.arms.iter().find(|arm| arm.runs.iter().any(|run| run.name == *name));
            let values = arm.map(ArmPlan::assignments).unwrap_or_default();
            if values.is_empty() { format!("{name}: {why}") } else { format!("{name} ({values}): {why}") }
        };
        self.failed.iter().map(line).collect()
    }

    /// The arms of which every run failed, if no run of the other arms did: their own values are probably the cause.
    pub fn arms_that_fail(&self) -> Vec<&ArmPlan> {
        let failed = |run: &RunPlan| self.failed.contains_key(&run.name);
        let (whole, rest): (Vec<&ArmPlan>, Vec<&ArmPlan>) =
            self.arms.iter().partition(|arm| arm.runs.iter().all(failed));
        let others_do_not = !rest.is_empty() && !rest.iter().flat_map(|arm| &arm.runs).any(failed);
        if others_do_not { whole } else { Vec::new() }
    }

    /// Whether the plan without these arms can be written as a `[sweep]`: each has a value that no other arm has.
    pub fn can_be_removed(&self, arms: &[&ArmPlan]) -> bool {
        let is_removed = |arm: &ArmPlan| arms.iter().any(|removed| removed.name == arm.name);
        let has = |arm: &ArmPlan, key: &str, value: &Value| arm.values.get(key) == Some(value);
        let only_here = |key: &str, value: &Value| self.arms.iter().all(|arm| is_removed(arm) || !has(arm, key, value));
        arms.iter().all(|arm| arm.values.iter().any(|(key, value)| only_here(key, value)))
    }

    /// Whether `folder` is that of a study.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(STUDY_FILE).is_file()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A study of two arms of two seeds, of which these runs failed.
    fn study(failed: &[&str]) -> StudyFile {
        let run = |arm: &str, seed| RunPlan { name: format!("{arm},seed={seed}"), seed: Some(seed) };
        let arm = |name: &str, beta: f64| ArmPlan {
            name: name.to_owned(),
            values: Map::from_iter([("objective.beta".to_owned(), json!(beta))]),
            runs: vec![run(name, 1), run(name, 2)],
        };
        StudyFile {
            name: "s".into(),
            method: "grid".into(),
            metric: "min:eval/loss".into(),
            keys: vec!["objective.beta".into()],
            stages: vec!["pre".into()],
            halving: None,
            arms: vec![arm("beta=0.1", 0.1), arm("beta=-1", -1.0)],
            failed: failed.iter().map(|name| ((*name).to_owned(), "why".to_owned())).collect(),
        }
    }

    /// Catches a failure without the values of its arm, and an arm that is blamed although others failed too, or one of its seeds
    /// did not.
    #[test]
    fn failures_name_the_values_of_their_arm() {
        let names = |failed: &[&str]| {
            study(failed).arms_that_fail().iter().map(|arm| arm.name.clone()).collect::<Vec<String>>()
        };
        assert_eq!(study(&["beta=-1,seed=1"]).failures(), ["beta=-1,seed=1 (objective.beta = -1.0): why"]);
        assert_eq!(study(&["pre"]).failures(), ["pre: why"]);
        assert_eq!(names(&["beta=-1,seed=1", "beta=-1,seed=2"]), ["beta=-1"]);
        assert_eq!(names(&["beta=-1,seed=1"]), [""; 0]);
        assert_eq!(names(&["beta=-1,seed=1", "beta=-1,seed=2", "beta=0.1,seed=1"]), [""; 0]);
        assert_eq!(names(&["beta=-1,seed=1", "beta=-1,seed=2", "beta=0.1,seed=1", "beta=0.1,seed=2"]), [""; 0]);
        assert_eq!(names(&[]), [""; 0]);
    }

    /// Catches the advice to remove a value that an arm which has not failed has too.
    #[test]
    fn an_arm_can_be_removed_if_a_value_is_its_alone() {
        let mut grid = study(&[]);
        for (at, arm) in grid.arms.iter_mut().enumerate() {
            arm.values.insert("seed".into(), json!(at));
        }
        let corner = ArmPlan { name: "corner".into(), ..grid.arms[0].clone() };
        assert!(grid.can_be_removed(&[&grid.arms[0]]));
        grid.arms.push(corner);
        assert!(!grid.can_be_removed(&[&grid.arms[0]]));
        assert!(grid.can_be_removed(&[&grid.arms[1]]));
        assert!(grid.can_be_removed(&[&grid.arms[0], &grid.arms[2]]));
    }
}
