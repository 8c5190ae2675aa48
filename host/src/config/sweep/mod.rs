//! Studies: a file with `[sweep]` becomes one experiment per combination of values and seed.
//!
//! A study is a [`Pipeline`] whose last stage (the experiment itself, in a file without stages) is replaced by its runs. A swept
//! value is put into the tree as one of `--set` is, and keeps its place in the file, so the checks of pipelines find every mistake of
//! every run. The stages before the last one are run once, and every run may start from them.

mod checks;
pub mod draws;
mod names;
pub mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value as Json;

use super::draft::{SWEEP, is_pipeline};
use super::form;
use super::overrides::{Override, apply_override};
use super::pipeline::Pipeline;
use super::tables::metric::MetricRule;
use crate::keys::mistake::Mistake;
use crate::keys::tree::{Entry, Node, Table, Value, join};
use draws::{Assignment, MOST_RUNS, Swept};
pub use names::short_key;
use table::{Goal, Method, Written, WrittenHalving};

/// The key of a run's seed.
pub const SEED: &str = "seed";
/// The stage that a file without stages is wrapped in.
const ONLY_STAGE: &str = "run";

/// A study: several runs of one file.
#[derive(Debug)]
pub struct Study {
    /// The stages that are run once, and then the runs, in order.
    pub pipeline: Pipeline,
    /// The combinations of values, in order.
    pub arms: Vec<Arm>,
    /// The runs, in order.
    pub runs: Vec<ArmRun>,
    /// How combinations were chosen.
    pub method: Method,
    halving: Option<WrittenHalving>,
    metric: Option<MetricRule>,
    root: Node,
}

/// One combination of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// The keys that it sets, with their values.
    pub values: Vec<(String, Json)>,
}

/// A run of an arm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmRun {
    /// Its name, and that of its folder within the study's.
    pub name: String,
    /// The position of its arm.
    pub arm: usize,
    /// Its seed; `None` for the experiment's own.
    pub seed: Option<i64>,
}

/// Successive halving, checked against the experiments.
#[derive(Debug, Clone, PartialEq)]
pub struct Halving {
    /// Steps of each rung; the last is that of a whole run.
    pub rungs: Vec<u64>,
    /// The best 1/factor of a rung continue.
    pub factor: u64,
    /// What decides.
    pub metric: MetricRule,
}

impl Study {
    /// Creates the study of a tree for which [`is_study`](super::draft::is_study) holds, or to which `seeds` gives a number of seeds.
    pub(super) fn new(
        file: &Arc<str>,
        stem: &str,
        mut root: Node,
        overrides: &[Override],
        seeds: Option<u64>,
    ) -> Study {
        let mut mistakes = Vec::new();
        let staged = is_pipeline(&root);
        let of_sweep = |over: &Override| over.path() == SWEEP || over.path().starts_with("sweep.");
        // Those of a pipeline find their stages later.
        for (index, over) in overrides.iter().enumerate().filter(|(_, over)| !staged || of_sweep(over)) {
            mistakes.extend(apply_override(&mut root, index, over).err());
        }
        let rest: Vec<Override> = overrides.iter().filter(|over| staged && !of_sweep(over)).cloned().collect();
        let mut sweep = remove(&mut root, SWEEP)
            .unwrap_or_else(|| Node { value: Value::Table(Table::default()), place: root.place.clone() });
        let (values, listed) = (remove(&mut sweep, "values"), remove(&mut sweep, "arm"));
        let kept = Node {
            value: Value::Table(Table(vec![Entry { key: SWEEP.to_owned(), node: sweep }])),
            place: root.place.clone(),
        };
        let mut written = read(&kept, &mut mistakes);
        if let Some(count) = seeds {
            let first = first_seed(&root);
            written.seeds = Some((first..first.saturating_add(count)).collect());
        }
        let rows = rows(&kept, &written, values.as_ref(), listed.as_ref(), &mut mistakes);
        let metric = metric(&kept, written.metric.as_deref(), written.goal, &mut mistakes);
        let (arms, runs, assigned) = match mistakes.is_empty() {
            true => arms_and_runs(rows, written.seeds.as_deref(), &kept, &mut mistakes),
            false => Default::default(),
        };
        if runs.len() > MOST_RUNS {
            let message = format!("{} runs; a study has at most {MOST_RUNS}", runs.len());
            mistakes.push(Mistake::new(place(&kept, SWEEP), SWEEP, message));
        }
        let swept = match mistakes.is_empty() {
            true => runs.iter().map(|run| run.name.clone()).zip(assigned).collect(),
            false => Vec::new(),
        };
        let root = if staged { root } else { wrapped(root) };
        let pipeline = Pipeline::with_runs(file, stem, root, &rest, Swept { runs: swept, mistakes });
        let (method, halving) = (written.method.unwrap_or(Method::Grid), written.halving);
        Study { pipeline, arms, runs, method, halving, metric, root: kept }
    }

    /// The number of stages that come before the runs.
    pub fn stages(&self) -> usize {
        self.pipeline.stages().len() - self.runs.len()
    }

    /// The keys that differ between arms, in order.
    pub fn swept_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for (key, _) in self.arms.iter().flat_map(|arm| &arm.values) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }
}

/// `[sweep]` without the keys of experiments in it.
fn read(kept: &Node, mistakes: &mut Vec<Mistake>) -> Written {
    let checked = form::check(kept);
    mistakes.extend(checked.mistakes);
    let own = checked.values.get(SWEEP).cloned().unwrap_or_default();
    serde_json::from_value(own).unwrap_or_default()
}

/// The seed that the file gives to its runs.
fn first_seed(root: &Node) -> u64 {
    let last = match root.find("stage").map(|node| &node.value) {
        Some(Value::List(stages)) => stages.last().and_then(|stage| stage.find(SEED)),
        _ => None,
    };
    match last.or_else(|| root.find(SEED)).map(|node| &node.value) {
        Some(Value::Int(seed)) => u64::try_from(*seed).unwrap_or(0),
        _ => 0,
    }
}

/// The combinations of values, in order.
fn rows(
    kept: &Node,
    written: &Written,
    values: Option<&Node>,
    listed: Option<&Node>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Vec<Assignment>> {
    let method = written.method.unwrap_or(Method::Grid);
    let draws = matches!(method, Method::Random | Method::LatinHypercube);
    let mut refuse = |key: &str, message: &str| mistakes.push(Mistake::new(place(kept, key), key, message));
    match (draws, written.trials) {
        (true, None) => refuse("sweep.trials", "missing; the number of combinations to draw, for example trials = 20"),
        (false, Some(_)) => refuse("sweep.trials", "unused: only method = \"random\" and \"latin-hypercube\" draw"),
        _ => {}
    }
    if !draws && written.seed.is_some() {
        refuse(
            "sweep.seed",
            "unused: it is the seed of the draws of \"random\" and \"latin-hypercube\"; the seeds of runs are sweep.seeds",
        );
    }
    if let (Method::List, Some(values)) = (method, values) {
        mistakes.push(Mistake::new(
            values.place.clone(),
            "sweep.values",
            "unused: method = \"list\" runs the tables [[sweep.arm]]",
        ));
        return Vec::new();
    }
    if let (false, Some(listed)) = (method == Method::List, listed) {
        let message = "unused: only method = \"list\" runs the tables [[sweep.arm]]";
        mistakes.push(Mistake::new(listed.place.clone(), "sweep.arm", message));
        return Vec::new();
    }
    if method == Method::List {
        return self::listed(kept, listed, mistakes);
    }
    let dimensions = values.map_or_else(Vec::new, |values| draws::dimensions(values, method, mistakes));
    let broken = !mistakes.is_empty();
    if dimensions.is_empty() {
        if !broken && (draws || written.seeds.is_none()) {
            let message = "missing; the values to run, for example values = { \"train.optimizer.lr\" = [1e-4, 3e-4] }";
            mistakes.push(Mistake::new(place(kept, SWEEP), "sweep.values", message));
        }
        return vec![Vec::new()];
    }
    let trials = written.trials.unwrap_or(1);
    let found = match method {
        Method::Random => draws::random(&dimensions, trials, written.seed()),
        Method::LatinHypercube => draws::latin_hypercube(&dimensions, trials, written.seed()),
        Method::Grid | Method::List => draws::grid(&dimensions),
    };
    found.unwrap_or_else(|message| {
        mistakes.push(Mistake::new(dimensions[0].place.clone(), "sweep.values", message));
        Vec::new()
    })
}

/// The tables `[[sweep.arm]]`, whose keys are dotted paths in quotes, or tables.
fn listed(kept: &Node, listed: Option<&Node>, mistakes: &mut Vec<Mistake>) -> Vec<Vec<Assignment>> {
    let Some(Node { value: Value::List(items), .. }) =
        listed.filter(|node| matches!(&node.value, Value::List(items) if !items.is_empty()))
    else {
        let place = listed.map_or_else(|| place(kept, SWEEP), |node| node.place.clone());
        let found = listed.map_or_else(String::new, |node| format!(", found {}", node.found()));
        let message =
            format!("expected at least one table [[sweep.arm]]{found}; for example {{ \"objective.beta\" = 0.1 }}");
        mistakes.push(Mistake::new(place, "sweep.arm", message));
        return Vec::new();
    };
    let mut rows: Vec<Vec<Assignment>> = Vec::new();
    for item in items {
        let mut row = Vec::new();
        match &item.value {
            Value::Table(_) => leaves(item, "", &mut row),
            _ => mistakes.push(Mistake::new(
                item.place.clone(),
                "sweep.arm",
                format!("expected a table, found {}", item.found()),
            )),
        }
        if let Some(earlier) = rows.iter().position(|earlier| draws::equal(earlier, &row)) {
            let message = format!("this arm equals arm {earlier}, counted from 0; change or remove it");
            mistakes.push(Mistake::new(item.place.clone(), "sweep.arm", message));
        }
        rows.push(row);
    }
    rows
}

fn leaves(node: &Node, path: &str, row: &mut Vec<Assignment>) {
    match &node.value {
        Value::Table(table) => table.0.iter().for_each(|entry| leaves(&entry.node, &join(path, &entry.key), row)),
        _ => row.push(Assignment { key: path.to_owned(), node: node.clone() }),
    }
}

/// The metric of `text`, with the direction in front of it or in `goal`.
fn metric(kept: &Node, text: Option<&str>, goal: Option<Goal>, mistakes: &mut Vec<Mistake>) -> Option<MetricRule> {
    let mut refuse = |key: &str, message: String| {
        mistakes.push(Mistake::new(place(kept, key), key, message));
        None
    };
    match (text, goal) {
        (None, None) => None,
        (None, Some(_)) => {
            refuse("sweep.goal", "unused: no sweep.metric is named; for example metric = \"eval/loss\"".to_owned())
        }
        (Some(text), None) => MetricRule::parse(text)
            .map_err(|message| format!("{message}, or set sweep.goal"))
            .map_or_else(|message| refuse("sweep.metric", message), Some),
        (Some(text), Some(_)) if text.contains(':') => {
            refuse("sweep.goal", format!("unused: \"{text}\" states the direction already"))
        }
        (Some(text), Some(goal)) => Some(MetricRule { metric: text.to_owned(), larger_is_better: goal == Goal::Max }),
    }
}

type Expanded = (Vec<Arm>, Vec<ArmRun>, Vec<Vec<Assignment>>);

/// Combines rows with seeds: rows that differ in their seed only are runs of one arm.
fn arms_and_runs(
    rows: Vec<Vec<Assignment>>,
    seeds: Option<&[u64]>,
    kept: &Node,
    mistakes: &mut Vec<Mistake>,
) -> Expanded {
    let mut found: Vec<Vec<Assignment>> = Vec::new();
    let mut runs: Vec<(usize, Option<Node>)> = Vec::new();
    if let Some(seeds) = seeds
        && let Some(twice) =
            seeds.iter().enumerate().find(|(at, seed)| seeds[..*at].contains(seed)).map(|(_, seed)| seed)
    {
        let message = format!("{twice} is listed twice: two runs would be equal; remove one");
        mistakes.push(Mistake::new(place(kept, "sweep.seeds"), "sweep.seeds", message));
    }
    for mut row in rows {
        let own = row.iter().position(|one| one.key == SEED).map(|at| row.remove(at).node);
        if let (Some(own), Some(_)) = (&own, seeds) {
            let message = "seeds are given here and by sweep.seeds or --seeds; leave one out";
            mistakes.push(Mistake::new(own.place.clone(), SEED, message));
        }
        let known = found.iter().position(|earlier| draws::equal(earlier, &row));
        let arm = known.unwrap_or_else(|| {
            found.push(row);
            found.len() - 1
        });
        let seed = |seed: &u64| Node { value: Value::Int(*seed as i64), place: place(kept, "sweep.seeds") };
        match seeds {
            Some(seeds) => runs.extend(seeds.iter().map(|one| (arm, Some(seed(one))))),
            None => runs.push((arm, own)),
        }
    }
    let names = names::names(&found);
    let name_of = |arm: usize, seed: &Option<Node>| match (seed.as_ref().map(|seed| &seed.value), found[arm].is_empty())
    {
        (Some(Value::Int(seed)), true) => format!("seed={seed}"),
        (Some(Value::Int(seed)), false) => format!("{},seed={seed}", names[arm]),
        _ => names[arm].clone(),
    };
    let assigned = runs.iter().map(|(arm, seed)| {
        let seed = seed.iter().map(|node| Assignment { key: SEED.to_owned(), node: node.clone() });
        found[*arm].iter().cloned().chain(seed).collect()
    });
    let assigned = assigned.collect();
    let named = runs.iter().map(|(arm, seed)| ArmRun {
        name: name_of(*arm, seed),
        arm: *arm,
        seed: match seed.as_ref().map(|seed| &seed.value) {
            Some(Value::Int(seed)) => Some(*seed),
            _ => None,
        },
    });
    let named = named.collect();
    let values = |row: &Vec<Assignment>| row.iter().map(|one| (one.key.clone(), one.node.to_json())).collect();
    let arms = found.iter().zip(&names).map(|(row, name)| Arm { name: name.clone(), values: values(row) });
    (arms.collect(), named, assigned)
}

/// An experiment as the only stage of a pipeline.
fn wrapped(mut root: Node) -> Node {
    let whole = ["name", "runs_dir"].map(|key| remove(&mut root, key).map(|node| Entry { key: key.to_owned(), node }));
    let place = root.place.clone();
    if let Value::Table(table) = &mut root.value {
        let node = Node { value: Value::Text(ONLY_STAGE.to_owned()), place: place.clone() };
        table.0.push(Entry { key: "name".to_owned(), node });
    }
    let stage = Entry { key: "stage".to_owned(), node: Node { value: Value::List(vec![root]), place: place.clone() } };
    Node { value: Value::Table(Table(whole.into_iter().flatten().chain([stage]).collect())), place }
}

fn remove(node: &mut Node, key: &str) -> Option<Node> {
    let Value::Table(table) = &mut node.value else { return None };
    let index = table.0.iter().position(|entry| entry.key == key)?;
    Some(table.0.remove(index).node)
}

fn place(kept: &Node, key: &str) -> crate::keys::mistake::Place {
    crate::keys::tree::place_of(kept, key)
}
