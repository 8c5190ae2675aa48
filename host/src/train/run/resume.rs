//! Which parts of an experiment may change when its run is resumed: its length, and what does not affect training.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use toml::Value;

use super::{ANOTHER_RUN, state::TrainState};
use crate::{
    config::{
        Experiment,
        experiment::{Length, Span},
        schema::KEYS,
    },
    error::{Error, Result},
    files,
    model::{adapter::config::base_of, files::hash::weights_sha256},
    optimizer::schedule::rate,
    runs::receipt::{ModelSource, Receipt},
    setup::named::model_folder,
};

/// A change that is not reported here: if it may change a result, the receipt records it.
const SILENT: &str = "backend.threads";
/// Keys whose values may be runs in the same runs folder.
const MODELS: [&str; 7] =
    ["model.from", "model.adapter", "reference.from", "teacher.from", "context.from", "critic.from", "reward"];
/// Keys that set a run's length.
const LENGTH: [&str; 2] = ["train.steps", "train.epochs"];

/// Differences between the experiment that a run began with and the one that it is resumed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// One line per key: `train.steps: 2 is now 4`.
    pub lines: Vec<String>,
    /// The same as assignments, before and after: `was: train.steps = 2`, `is:  train.steps = 4`.
    pub as_written: Vec<String>,
    /// Whether the run's length changed.
    pub length: bool,
}

/// Compares the experiment that the run in `folder` began with and `now`.
///
/// # Errors
/// A request error if something differs that may not change; a run's own file that cannot be read.
pub fn changed(folder: &Path, now: &Experiment) -> Result<Changed> {
    let path = folder.join("experiment.toml");
    let failed = || Error::run(format!("cannot read {}", path.display()));
    let before = files::read_to_string(&path).map_err(|e| failed().with_cause(e))?;
    let now = now.to_toml()?;
    if before.trim().is_empty() {
        return Err(Error::request(format!(
            "{} is empty, so the experiment that the run began with is not known",
            path.display()
        ))
        .with_hint(format!("restore the file, or {ANOTHER_RUN}")));
    }
    if before == now {
        return Ok(Changed::default());
    }
    let parsed = |text: &str| toml::from_str::<Value>(text).map_err(|e| failed().with_cause(e));
    let (mut old, new) = (values(&parsed(&before)?), values(&parsed(&now)?));
    move_models(&mut old, &new);
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).filter(differs).collect();
    let may_change = |key: &str| {
        // A change from steps to epochs or back is refused: it changes both keys.
        let length = LENGTH.contains(&key) && old.contains_key(key) && new.contains_key(key);
        length || eval_may_change(key, &old, &new) || declared_free(key)
    };
    let receipt = Receipt::read(&folder.join("receipt.json")).ok();
    let mut refused = BTreeSet::new();
    for key in keys.iter().copied().filter(|key| !may_change(key)) {
        let then = receipt.as_ref().and_then(|receipt| receipt.model_of(key));
        let now = new.get(key).and_then(|value| value.strip_prefix('"')?.strip_suffix('"'));
        let is_moved = match (then, now) {
            (Some(then), Some(now)) if old.contains_key(key) => has_weights_of(Path::new(now), then)?,
            _ => false,
        };
        if !is_moved {
            refused.insert(key);
        }
    }
    if !refused.is_empty() {
        return Err(refusal(folder, as_written(&refused, &old, &new)));
    }
    let shown = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
    let reported = keys.iter().filter(|key| !is_or_is_in(key, SILENT));
    Ok(Changed {
        lines: reported.map(|key| format!("{key}: {} is now {}", shown(old.get(*key)), shown(new.get(*key)))).collect(),
        as_written: as_written(&keys, &old, &new),
        length: keys.iter().any(|key| LENGTH.contains(&key.as_str())),
    })
}

/// Returns whether the model at `path` has the weights that a receipt records, and over the same base if it is an adapter: then it is
/// the same model at another path. A path without a model has not.
fn has_weights_of(path: &Path, then: &ModelSource) -> Result<bool> {
    let Ok(folder) = model_folder(path) else { return Ok(false) };
    if then.sha256.as_ref() != Some(&weights_sha256(&folder)?) {
        return Ok(false);
    }
    match &then.base_sha256 {
        Some(base) => Ok(*base == weights_sha256(&base_of(&folder)?)?),
        None => Ok(true),
    }
}

/// Returns whether the declaration of `key` or of a table that contains it allows it to change.
fn declared_free(key: &str) -> bool {
    KEYS.iter().any(|declared| declared.may_change && is_or_is_in(key, declared.path))
}

/// Returns whether `key` is `eval.every` and early stopping is off: then the frequency of evaluations does not affect training.
fn eval_may_change(key: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> bool {
    let decides = |keys: &BTreeMap<String, String>| keys.keys().any(|key| is_or_is_in(key, "eval.early_stop"));
    key == "eval.every" && !decides(old) && !decides(new)
}

fn is_or_is_in(key: &str, table: &str) -> bool {
    key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Returns all values that are not tables, by their dotted keys.
fn values(of: &Value) -> BTreeMap<String, String> {
    fn collect(value: &Value, key: &str, all: &mut BTreeMap<String, String>) {
        let below = |own: &str| if key.is_empty() { own.to_owned() } else { format!("{key}.{own}") };
        match value {
            Value::Table(table) => table.iter().for_each(|(own, value)| collect(value, &below(own), all)),
            Value::Array(list) if list.iter().any(Value::is_table) => {
                list.iter().enumerate().for_each(|(own, value)| collect(value, &below(&own.to_string()), all));
            }
            other => _ = all.insert(key.to_owned(), other.to_string()),
        }
    }
    let mut all = BTreeMap::new();
    collect(of, "", &mut all);
    all
}

/// Rewrites the paths of models in the old runs folder to the new one, in case the folder was moved: a stage of a pipeline may
/// begin from such a model.
fn move_models(old: &mut BTreeMap<String, String>, new: &BTreeMap<String, String>) {
    let folder = |keys: &BTreeMap<String, String>| keys.get("runs_dir").map(|own| own.trim_matches('"').to_owned());
    let (Some(from), Some(to)) = (folder(old), folder(new)) else { return };
    for (_, value) in old.iter_mut().filter(|(key, _)| MODELS.iter().any(|own| is_or_is_in(key, own))) {
        let below =
            value.strip_prefix('"').and_then(|path| path.strip_prefix(&from)).filter(|rest| rest.starts_with('/'));
        if let Some(rest) = below {
            *value = format!("\"{to}{rest}");
        }
    }
}

/// Returns these keys with their old and new values, except the number of threads.
fn as_written(keys: &BTreeSet<&String>, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let reported = keys.iter().filter(|key| !is_or_is_in(key, SILENT));
    let lines = |key: &&&String| {
        let line = |what: &str, value: &String| format!("{what} {key} = {value}");
        [old.get(**key).map(|value| line("was:", value)), new.get(**key).map(|value| line("is: ", value))]
    };
    reported.flat_map(|key| lines(&key)).flatten().collect()
}

fn refusal(folder: &Path, lines: Vec<String>) -> Error {
    Error::request(format!("the experiment differs from {0}/experiment.toml, with which run {0} began", folder.display()))
        .with_details(lines)
        .with_hint(format!(
            "resume with the experiment as it was, or {ANOTHER_RUN} (with empty moments and from the data's beginning). What may change on resuming: the number of train.steps or \
             train.epochs, checkpoint.every, checkpoint.keep, checkpoint.merged, checkpoint.dtype and checkpoint.shard_size, sample, track, alert, backend.threads, runs_dir and name if the run was moved, model.from and the paths of other models if the same weights are there, and \
             eval.every if there is no eval.early_stop",
        ))
}

/// Sets the length of a run at `state` to `total`. Returns a note if this changes the learning rate.
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
        return Err(Error::request(format!("{key}: {total} steps, but {done} are already done"))
            .with_hint(format!("set {key} so that there are at least {done} steps; the run had {before}")));
    }
    if state.stopped && total > done {
        let why =
            "eval.early_stop, an alert or an objective stopped it before its last step, so more steps have no effect";
        return Err(
            Error::request(format!("{key}: the run ended after step {done} of {before}: {why}")).with_hint(ANOTHER_RUN)
        );
    }
    state.total = total;
    state.ended &= done == total;
    let schedule = &experiment.train.schedule;
    let fixed = !schedule.kind.depends_on_length() && matches!(schedule.warmup, Span::Steps(steps) if steps <= before);
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

    /// Catches a hint that promises less or more than is accepted: any other `eval.every` is accepted, 0 and absent included,
    /// unless evaluations decide when the run stops.
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
        for key in KEYS.iter().filter(|key| key.may_change) {
            assert!(hint.contains(key.path), "{} in {hint}", key.path);
        }
        assert!(hint.contains("eval.every if there is no eval.early_stop"), "{hint}");
    }

    /// Catches a model that was moved and refused, one that was replaced, and one whose base was.
    #[test]
    fn a_model_that_was_moved_has_the_weights_of_the_receipt() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        let weights = |place: &str| weights_sha256(&folder.path().join(place)).unwrap();
        for (place, text) in [("base", "abc"), ("moved", "abc"), ("other", "abd")] {
            write(&format!("{place}/config.json"), "{}");
            write(&format!("{place}/model.safetensors"), text);
        }
        write("peft/adapter_model.safetensors", "e");
        let config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"], "base_model_name_or_path": "../base"}"#;
        write("peft/adapter_config.json", config);
        let has = |place: &str, sha256: String, base_sha256: Option<String>| {
            let then = ModelSource { from: None, sha256: Some(sha256), base_sha256, files: None };
            has_weights_of(&folder.path().join(place), &then).unwrap()
        };
        assert!(has("moved", weights("base"), None));
        assert!(!has("other", weights("base"), None) && !has("nowhere", weights("base"), None));
        assert!(has("peft", weights("peft"), Some(weights("moved"))));
        assert!(!has("peft", weights("peft"), Some(weights("other"))));
    }

    /// Catches a runs folder that was moved and whose stages are treated as beginning from other models, a path that only
    /// shares a prefix, and lines that do not name a key's table.
    #[test]
    fn a_run_may_be_moved_together_with_its_models() {
        let keys = |runs: &str, from: &str, score: &str| {
            let text = format!("runs_dir = \"{runs}\"\n[model]\nfrom = \"{from}\"\n[[reward]]\nmodel = \"{score}\"\n");
            values(&toml::from_str::<Value>(&text).unwrap())
        };
        let mut old = keys("runs", "runs/p/a", "runs2/b");
        let new = keys("/else/where", "/else/where/p/a", "runs2/b");
        move_models(&mut old, &new);
        let differs: BTreeSet<&String> = old.keys().filter(|key| old.get(*key) != new.get(*key)).collect();
        let lines = as_written(&differs, &old, &new);
        assert_eq!(lines, ["was: runs_dir = \"runs\"", "is:  runs_dir = \"/else/where\""]);
        let other = keys("/else/where", "/else/where/p/c", "runs2/b");
        let lines = as_written(&["model.from".to_owned()].iter().collect(), &old, &other);
        assert_eq!(lines, ["was: model.from = \"/else/where/p/a\"", "is:  model.from = \"/else/where/p/c\""]);
    }

    /// Catches a table that is confused with one whose name begins the same, and a list of tables whose keys are not compared.
    #[test]
    fn keys_are_compared_by_their_whole_path() {
        assert!(is_or_is_in("sample.every", "sample") && is_or_is_in("sample", "sample"));
        assert!(!is_or_is_in("sampler.every", "sample") && !is_or_is_in("checkpoint.everything", "checkpoint.every"));
        let text = "a = 1\n[b]\nc = [1, 2]\n[[d]]\ne = \"x\"\n[[d]]\ne = \"y\"\n";
        let found = values(&toml::from_str::<Value>(text).unwrap());
        let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, [("a", "1"), ("b.c", "[1, 2]"), ("d.0.e", "\"x\""), ("d.1.e", "\"y\"")]);
    }
}
