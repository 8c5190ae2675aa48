//! What of an experiment may change when its run is resumed: how long it is, and what does not touch what is learned.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use toml::Value;

use super::{schedule::rate, state::TrainState};
use crate::{
    config::{
        Experiment,
        experiment::{Length, ScheduleKind, Span},
    },
    error::{Error, Result},
};

/// Keys that may change freely, or the tables they begin with.
const FREE: [&str; 4] = ["checkpoint.every", "checkpoint.keep", "sample", "backend.threads"];
/// Not worth a word: how many threads compute never changes a result.
const SILENT: &str = "backend.threads";
/// Keys of a run's length.
const LENGTH: [&str; 2] = ["train.steps", "train.epochs"];

/// What differs between the experiment that a run began with and the one that it is resumed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// A line each: `train.steps: 2 is now 4`.
    pub lines: Vec<String>,
    /// The same as lines of the file: `was: steps = 2`, `is:  steps = 4`.
    pub as_written: Vec<String>,
    /// Whether the run's length is among them.
    pub length: bool,
}

/// Compares the experiment that the run in `folder` began with and `now`.
///
/// # Errors
/// A request error where something differs that may not change; the run's own file cannot be read.
pub fn changed(folder: &Path, now: &Experiment) -> Result<Changed> {
    let path = folder.join("experiment.toml");
    let failed = || Error::run(format!("cannot read {}", path.display()));
    let before = fs::read_to_string(&path).map_err(|e| failed().with_cause(e))?;
    let now = now.to_toml()?;
    if before.trim().is_empty() {
        return Err(Error::request(format!("{} is empty: what the run began with is lost", path.display()))
            .with_hint("put the file back as it was, or start another run with --name (and model.from this one)"));
    }
    if before == now {
        return Ok(Changed::default());
    }
    let parsed = |text: &str| toml::from_str::<Value>(text).map_err(|e| failed().with_cause(e));
    let (old, new) = (values(&parsed(&before)?), values(&parsed(&now)?));
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).filter(differs).collect();
    let may_change = |key: &str| {
        // Steps and epochs are told apart by their key: from one to the other, both differ.
        let length = LENGTH.contains(&key) && old.contains_key(key) && new.contains_key(key);
        length || eval_may_change(key, &old, &new) || FREE.iter().any(|free| is_or_is_in(key, free))
    };
    if !keys.iter().all(|key| may_change(key)) {
        return Err(refusal(folder, as_written(&before, &now)));
    }
    let told = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
    let told_keys = keys.iter().filter(|key| !is_or_is_in(key, SILENT));
    Ok(Changed {
        lines: told_keys.map(|key| format!("{key}: {} is now {}", told(old.get(*key)), told(new.get(*key)))).collect(),
        as_written: as_written(&before, &now),
        length: keys.iter().any(|key| LENGTH.contains(&key.as_str())),
    })
}

/// How often a run is evaluated decides nothing where nothing is decided by evaluations.
fn eval_may_change(key: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> bool {
    let decides = |keys: &BTreeMap<String, String>| keys.keys().any(|key| is_or_is_in(key, "eval.early_stop"));
    key == "eval.every" && !decides(old) && !decides(new)
}

fn is_or_is_in(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// All values that are no tables, by their dotted keys.
fn values(of: &Value) -> BTreeMap<String, String> {
    fn collect(value: &Value, key: &str, found: &mut BTreeMap<String, String>) {
        let below = |own: &str| if key.is_empty() { own.to_owned() } else { format!("{key}.{own}") };
        match value {
            Value::Table(table) => table.iter().for_each(|(own, value)| collect(value, &below(own), found)),
            Value::Array(list) if list.iter().any(Value::is_table) => {
                list.iter().enumerate().for_each(|(own, value)| collect(value, &below(&own.to_string()), found));
            }
            other => _ = found.insert(key.to_owned(), other.to_string()),
        }
    }
    let mut found = BTreeMap::new();
    collect(of, "", &mut found);
    found
}

/// The lines that differ, but for the number of threads.
fn as_written(before: &str, now: &str) -> Vec<String> {
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("threads = ")).map(str::to_owned).collect()
    };
    let (old, new) = (lines(before), lines(now));
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("was: {line}"));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("is:  {line}"));
    gone.chain(come).collect()
}

fn refusal(folder: &Path, lines: Vec<String>) -> Error {
    Error::request(format!("the experiment is not the one that run {} began with", folder.display()))
        .with_details(lines)
        .with_hint(
            "resume with the experiment as it was, or start another run with --name (and model.from this one, with \
             empty moments and from the data's beginning). What may change on resuming: the number of train.steps or \
             train.epochs, checkpoint.every and checkpoint.keep, sample, backend.threads, and eval.every where there is no \
             eval.early_stop",
        )
}

/// Gives a run that has come to `state` the length `total`. Returns what this does to the learning rate, where it does
/// anything.
///
/// # Errors
/// A request error for fewer steps than are done, and for a run that stopped before its last step.
pub fn lengthen(state: &mut TrainState, total: u64, experiment: &Experiment) -> Result<Option<String>> {
    let (done, before) = (state.step, state.total);
    let key = match experiment.train.length {
        Length::Steps(_) => LENGTH[0],
        Length::Epochs(_) => LENGTH[1],
    };
    if total < done {
        return Err(Error::request(format!("{key}: {done} steps are done, {total} are fewer"))
            .with_hint(format!("give {key} that come to at least {done} steps; the run had {before}")));
    }
    if state.stopped && total > done {
        let why = "it was stopped before its last step, by eval.early_stop or an objective, and more steps change nothing about that";
        return Err(Error::request(format!("{key}: the run ended after step {done} of {before}: {why}"))
            .with_hint("start another run with --name and model.from this one"));
    }
    state.total = total;
    state.ended &= done == total;
    let schedule = &experiment.train.schedule;
    let fixed = schedule.kind == ScheduleKind::Constant && matches!(schedule.warmup, Span::Steps(_));
    if fixed || total == before || done == total {
        return Ok(None);
    }
    let lr = |total: u64| experiment.train.optimizer.lr * rate(schedule, done, total);
    let then = if done < before { format!("instead of {:.3e}", lr(before)) } else { "where it had ended".to_owned() };
    let kind = serde_json::to_value(schedule.kind).ok().and_then(|kind| Some(kind.as_str()?.to_owned()));
    Ok(Some(format!(
        "train.schedule: the {} schedule depends on the length: from step {} on it is that of {total} steps, which begins at a \
         learning rate of {:.3e} {then}",
        kind.unwrap_or_default(),
        done + 1,
        lr(total),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a hint that promises less or more than is accepted: any other `eval.every` is, 0 and absent included, unless evaluations
    /// decide when the run stops.
    #[test]
    fn how_often_a_run_is_evaluated_may_change_unless_evaluations_stop_it() {
        let keys = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let [never, often, absent] = [keys(&[("eval.every", "0")]), keys(&[("eval.every", "4")]), keys(&[])];
        for (old, new) in [(&never, &often), (&often, &never), (&absent, &often), (&often, &absent)] {
            assert!(eval_may_change("eval.every", old, new), "{old:?} {new:?}");
            assert!(!eval_may_change("eval.tokens", old, new));
        }
        let stops = keys(&[("eval.every", "8"), ("eval.early_stop.patience", "2")]);
        assert!(!eval_may_change("eval.every", &stops, &often) && !eval_may_change("eval.every", &often, &stops));
        let hint = refusal(Path::new("runs/a"), Vec::new()).report();
        assert!(hint.contains("eval.every where there is no eval.early_stop"), "{hint}");
    }

    /// Catches a table that is taken for another whose name begins alike, and a list of tables whose keys are not seen.
    #[test]
    fn keys_are_known_by_their_whole_path() {
        assert!(is_or_is_in("sample.every", "sample") && is_or_is_in("sample", "sample"));
        assert!(!is_or_is_in("sampler.every", "sample") && !is_or_is_in("checkpoint.everything", "checkpoint.every"));
        let text = "a = 1\n[b]\nc = [1, 2]\n[[d]]\ne = \"x\"\n[[d]]\ne = \"y\"\n";
        let found = values(&toml::from_str::<Value>(text).unwrap());
        let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a", "1"), ("b.c", "[1, 2]"), ("d.0.e", "\"x\""), ("d.1.e", "\"y\"")]);
    }
}
