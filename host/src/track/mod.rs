//! Event files that TensorBoard shows while a run is in progress: what the run's logs say, after they were written.
//!
//! | log | in TensorBoard |
//! |---|---|
//! | metrics.jsonl | each number as a scalar of its own name; a number that was not finite is NaN |
//! | timing.jsonl | each number as `timing/NAME`; of evaluations as `timing/eval/NAME` |
//! | histograms.jsonl | `NAME/distribution`, of evaluations `eval/NAME/distribution`; TensorBoard has no form for a calibration |
//! | samples.jsonl | texts, as `samples/KIND` |
//!
//! Every process of a run writes its own file, which begins with the first step that it computes: TensorBoard drops what a file
//! before it has of that step and of later ones.

pub(crate) mod event;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};

use event::{Event, Histogram, SummaryValue, What};

/// How the name of an event file begins; seconds since 1970 follow.
const PREFIX: &str = "events.out.tfevents.";
/// How they end.
const SUFFIX: &str = ".telos";
/// The most texts of one kind that are shown of a step.
const TEXTS: usize = 16;

/// The logs that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// metrics.jsonl.
    Metrics,
    /// timing.jsonl.
    Timing,
    /// histograms.jsonl.
    Histograms,
    /// samples.jsonl.
    Samples,
}

/// A line of a log.
pub struct LogLine {
    /// The log.
    pub log: Log,
    /// The line's object.
    pub line: Value,
}

/// An event file that grows with the run's logs.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Creates an event file in `folder`; what earlier files have of the step `from` and of later ones is no longer shown.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn create(folder: &Path, from: u64) -> io::Result<TensorBoard> {
        fs::create_dir_all(folder)?;
        // TensorBoard reads files by their names' order.
        let seconds = |name: String| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok();
        let mut last = 0;
        for entry in fs::read_dir(folder)? {
            last = last.max(entry?.file_name().into_string().ok().and_then(seconds).unwrap_or(0));
        }
        let now = (wall_time() as u64).max(last.saturating_add(1));
        let path = folder.join(format!("{PREFIX}{now:010}{SUFFIX}"));
        let file = File::options().append(true).create_new(true).open(&path)?;
        let mut board = TensorBoard { path, file };
        board.append([(0, What::version()), (from, What::start())])?;
        Ok(board)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what complete lines of the logs say, in one write.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn write(&mut self, lines: &[LogLine]) -> io::Result<()> {
        let of = |LogLine { log, line }: &LogLine| match log {
            Log::Metrics => values(line, scalars(line, "")),
            // The value of an alert is that of its metric.
            Log::Timing if line["kind"] == "alert" || line["kind"] == "operations" => None,
            Log::Timing if line["kind"] == "eval" => values(line, scalars(line, "timing/eval/")),
            Log::Timing => values(line, scalars(line, "timing/")),
            Log::Histograms => values(line, histogram(line).into_iter().collect()),
            Log::Samples => None,
        };
        let events: Vec<(u64, What)> = lines.iter().filter_map(of).chain(texts(lines)).collect();
        self.append(events)
    }

    fn append(&mut self, events: impl IntoIterator<Item = (u64, What)>) -> io::Result<()> {
        let (mut records, wall_time) = (Vec::new(), wall_time());
        for (step, what) in events {
            Event { wall_time, step: step as i64, what: Some(what) }.write(&mut records);
        }
        self.file.write_all(&records)
    }
}

/// Returns whether a folder has nothing but event files of telos.
pub fn holds_only_events(folder: &Path) -> bool {
    let is_event = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let is_named = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
            is_file && entry.file_name().to_str().is_some_and(is_named)
        })
    };
    fs::read_dir(folder).is_ok_and(|mut entries| entries.all(is_event))
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The step of a line with these values; `None` for a line without values.
fn values(line: &Value, values: Vec<SummaryValue>) -> Option<(u64, What)> {
    let step = line["step"].as_u64()?;
    (!values.is_empty()).then(|| (step, What::values(values)))
}

/// Every number of a line and of the objects in it; null is a number that was not finite.
fn scalars(line: &Value, prefix: &str) -> Vec<SummaryValue> {
    let mut found = Vec::new();
    for (name, value) in line.as_object().into_iter().flatten().filter(|(name, _)| *name != "step") {
        match value {
            Value::Number(_) | Value::Null => {
                found.push(SummaryValue::scalar(&format!("{prefix}{name}"), value.as_f64().unwrap_or(f64::NAN)));
            }
            Value::Object(_) => found.extend(scalars(value, &format!("{prefix}{name}/"))),
            _ => {}
        }
    }
    found
}

/// The values that a line has counted in bins, if any is finite.
fn histogram(line: &Value) -> Option<SummaryValue> {
    let number = |key: &str| line[key].as_f64();
    let list = |key: &str| line[key].as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>();
    let histogram = Histogram {
        min: number("min")?,
        max: number("max")?,
        num: number("count")?,
        sum: number("sum")?,
        sum_squares: number("sum_squares")?,
        bucket_limit: list("edges")?.split_off(1),
        bucket: list("counts")?,
    };
    let (name, prefix) = (line["name"].as_str()?, if line["kind"] == "eval" { "eval/" } else { "" });
    Some(SummaryValue::histogram(&format!("{prefix}{name}/distribution"), histogram))
}

/// The samples among `lines`: those of one step and kind are one event.
fn texts(lines: &[LogLine]) -> Vec<(u64, What)> {
    let mut found: Vec<(u64, String, Vec<String>)> = Vec::new();
    for line in lines {
        let LogLine { log: Log::Samples, line: Value::Object(line) } = line else { continue };
        let Some(step) = line.get("step").and_then(Value::as_u64) else { continue };
        let kind = match line.get("kind").and_then(Value::as_str) {
            Some(kind) => kind,
            None if line.contains_key("reward") => "rollout",
            None => "text",
        };
        match found.iter_mut().find(|one| one.0 == step && one.1 == kind) {
            Some((_, _, texts)) if texts.len() == TEXTS => {}
            Some((_, _, texts)) => texts.push(markdown(line)),
            None => found.push((step, kind.to_owned(), vec![markdown(line)])),
        }
    }
    let event =
        |(step, kind, texts)| (step, What::values(vec![SummaryValue::texts(&format!("samples/{kind}"), texts)]));
    found.into_iter().map(event).collect()
}

/// A sample as a block of code, so that no part of it is read as Markdown.
fn markdown(sample: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in sample.iter().filter(|(name, _)| !["step", "kind"].contains(&name.as_str())) {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for line in format!("{name}: {shown}").lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests;
