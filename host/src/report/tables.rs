//! The tables of a report: what ran, what it cost, which options differ, what was learned from.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::{Table, Value};

use super::{
    Group, Labelled, Report,
    health::short,
    record::{EVAL, RunRecord},
};

/// Rows of cells; the first row and the first column are headings.
pub type Rows = Vec<Vec<String>>;

/// One row for each run: its state, objective, steps, time, tokens and speed.
pub fn runs(report: &Report) -> Rows {
    let heads = ["run", "state", "objective", "steps", "time", "tokens", "tokens/s", "peak memory", "last loss"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for (name, run) in report.named() {
        let steps = run.total.map_or(run.step.to_string(), |total| format!("{} of {total}", run.step));
        // The peak of each process: a resumed run begins again.
        let peaks = run.timing.get("process_peak_gib").into_iter().flatten().map(|(_, gib)| *gib);
        let peak = peaks.reduce(f64::max);
        let loss = run.metrics.get("loss").and_then(|points| points.last());
        let dash = || "-".to_owned();
        rows.push(vec![
            name,
            run.state.to_string(),
            run.objectives().join(" + "),
            steps,
            duration(run.seconds()),
            count(run.tokens()),
            run.timing.get("tokens_per_s").and_then(|p| median(p)).map_or_else(dash, count),
            peak.map_or_else(dash, |gib| format!("{gib:.2} GiB")),
            loss.map_or_else(dash, |(_, loss)| short(*loss)),
        ]);
    }
    rows
}

/// Where the time of each run of a group went.
pub fn phases(group: &Group) -> Rows {
    let mut rows = vec![["", "time", "share"].map(str::to_owned).to_vec()];
    for Labelled { label, run } in &group.runs {
        let total = run.seconds().max(1e-9);
        for (phase, seconds) in &run.phases {
            let name = if group.runs.len() == 1 { phase.clone() } else { format!("{label}: {phase}") };
            rows.push(vec![name, duration(*seconds), format!("{:.1}%", 100.0 * seconds / total)]);
        }
    }
    rows
}

/// The first, the last, the least and the greatest value of what evaluations measured.
pub fn evaluations(group: &Group) -> Rows {
    let mut rows = vec![["", "first", "last", "least", "greatest"].map(str::to_owned).to_vec()];
    for Labelled { label, run } in &group.runs {
        for (name, points) in run.metrics.iter().filter(|(name, _)| name.starts_with(EVAL)) {
            let name = name.trim_start_matches(EVAL);
            let values: Vec<(f64, f64)> = points.iter().filter(|(_, value)| value.is_finite()).copied().collect();
            let (Some(first), Some(last)) = (values.first(), values.last()) else { continue };
            if name == "tokens" {
                continue;
            }
            let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
            let at = |(step, value): &(f64, f64)| format!("{} (step {step})", short(*value));
            let [least, greatest] = [values.iter().min_by(by_value), values.iter().max_by(by_value)];
            rows.push(vec![
                if group.runs.len() == 1 { name.to_owned() } else { format!("{label}: {name}") },
                short(first.1),
                short(last.1),
                least.map_or_else(String::new, at),
                greatest.map_or_else(String::new, at),
            ]);
        }
    }
    if rows.len() == 1 { Vec::new() } else { rows }
}

/// The options of the runs of a group that differ between them; empty for a single run.
pub fn differences(group: &Group) -> Rows {
    let options: Vec<BTreeMap<String, String>> = group.runs.iter().map(|run| options(&run.run)).collect();
    let mut keys: Vec<&String> = options.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    let differs = |key: &&&String| options.iter().any(|own| own.get(**key) != options[0].get(**key));
    let heads = std::iter::once(String::new()).chain(group.runs.iter().map(|run| run.label.clone())).collect();
    let row = |key: &String| {
        let cells = options.iter().map(|own| own.get(key).cloned().unwrap_or_else(|| "-".to_owned()));
        std::iter::once(key.clone()).chain(cells).collect()
    };
    let rows: Rows = keys.iter().filter(differs).map(|key| row(key)).collect();
    if rows.is_empty() { rows } else { std::iter::once(heads).chain(rows).collect() }
}

/// Every option of a run, by its key.
pub fn options(run: &RunRecord) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    flatten("", &run.experiment, &mut found);
    found.remove("name");
    found
}

fn flatten(prefix: &str, table: &Table, found: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, found),
            Value::Array(all) if all.iter().any(Value::is_table) => {
                for (index, inner) in all.iter().enumerate() {
                    match inner {
                        Value::Table(inner) => flatten(&format!("{key}.{index}"), inner, found),
                        other => _ = found.insert(format!("{key}.{index}"), other.to_string()),
                    }
                }
            }
            Value::String(text) => _ = found.insert(key, text.clone()),
            other => _ = found.insert(key, other.to_string()),
        }
    }
}

/// Where and with what a run was made: version, processor, backend, plugins, start.
pub fn made_with(run: &RunRecord) -> Rows {
    let receipt = &run.receipt;
    let at = |path: &str| receipt.pointer(path).map(plain).unwrap_or_default();
    let mut rows: Rows = vec![["", ""].map(str::to_owned).to_vec()];
    let mut add = |name: &str, text: String| {
        if !text.trim().is_empty() {
            rows.push(vec![name.to_owned(), text]);
        }
    };
    add("folder", run.folder.display().to_string());
    add("telos", format!("{} {}", at("/telos/version"), at("/telos/target")));
    let command = receipt.get("command").and_then(Json::as_array);
    add("command", command.into_iter().flatten().map(plain).collect::<Vec<_>>().join(" "));
    let cores = if run.about.cores > 0 { format!(", {} threads", run.about.cores) } else { String::new() };
    add("processor", format!("{}{cores}", run.about.processor));
    let backend = ["plugin", "device", "dtype", "instruction_set"].map(|key| at(&format!("/backend/{key}")));
    let backend: Vec<String> = backend.into_iter().filter(|text| !text.is_empty()).collect();
    add("backend", backend.join(", "));
    add("threads", at("/backend/threads"));
    add("seed", at("/seed"));
    if run.about.parameters > 0 {
        let trained = run.about.trained_parameters;
        let all = run.about.parameters;
        let of = if trained == all { String::new() } else { format!(", {} trained", count(trained as f64)) };
        add("parameters", format!("{}{of}", count(all as f64)));
    }
    add("model", at("/model/from"));
    for plugin in receipt.get("plugins").and_then(Json::as_array).into_iter().flatten() {
        let part = |key: &str| plugin.get(key).map(plain).unwrap_or_default();
        let hash: String = part("sha256").chars().take(12).collect();
        add(&format!("plugin {}", part("id")), format!("{} {}, sha256 {hash}", part("kind"), part("version")));
    }
    rows
}

/// What the run learned from: the sources, and how many rows were kept, held out, dropped and cut.
pub fn data(run: &RunRecord) -> Rows {
    let mut rows: Rows = vec![["", ""].map(str::to_owned).to_vec()];
    for source in run.receipt.get("data").and_then(Json::as_array).into_iter().flatten() {
        let part = |key: &str| source.get(key).map(plain).unwrap_or_default();
        let hash: String = part("sha256").chars().take(12).collect();
        rows.push(vec![part("path"), format!("{} bytes, sha256 {hash}", part("bytes"))]);
    }
    for (name, value) in run.receipt.get("rows").and_then(Json::as_object).into_iter().flatten() {
        let text = plain(value);
        if !["", "0"].contains(&text.as_str()) {
            rows.push(vec![name.replace('_', " "), text]);
        }
    }
    if rows.len() == 1 { Vec::new() } else { rows }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        Json::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn median(points: &[(f64, f64)]) -> Option<f64> {
    let mut values: Vec<f64> = points.iter().map(|point| point.1).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A number of things with three digits.
pub fn count(number: f64) -> String {
    match number {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Seconds as a duration.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{} h {} min", (s / 3600.0).floor(), ((s % 3600.0) / 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::record::tests::empty_run;

    fn with(text: &str) -> Labelled {
        Labelled { label: "r".into(), run: RunRecord { experiment: text.parse().unwrap(), ..empty_run() } }
    }

    /// Catches an option of a second objective that is lost, and options that are equal and listed.
    #[test]
    fn only_options_that_differ_are_listed() {
        let base = "seed = 1\nname = \"a\"\n[train]\nsteps = 3\n[[objective]]\nplugin = \"dpo\"\nbeta = ";
        let group = |texts: [String; 2]| Group { title: String::new(), runs: texts.map(|text| with(&text)).to_vec() };
        let rows = differences(&group([format!("{base}0.1"), format!("{base}0.3\nextra = true")]));
        let expected = [["", "r", "r"], ["objective.0.beta", "0.1", "0.3"], ["objective.0.extra", "-", "true"]];
        assert_eq!(rows, expected.map(|row| row.map(str::to_owned).to_vec()));
        assert!(differences(&group([format!("{base}0.1"), format!("{base}0.1")])).is_empty());
    }

    #[test]
    fn times_and_counts_are_short() {
        assert_eq!([1.25, 61.0, 3599.9, 7260.0].map(duration), ["1.2 s", "1 min 1 s", "59 min 59 s", "2 h 1 min"]);
        assert_eq!([12.0, 12_345.0, 2.5e6, 7e9].map(count), ["12", "12.3 k", "2.50 M", "7.00 G"]);
    }
}
