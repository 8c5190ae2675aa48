//! The runs in a folder: state, last loss, age and size, read from the ends of their logs.

use std::{
    fmt,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;

use super::{
    health::short,
    record::{alerts::active_alerts, is_run, state::State},
    study::StudyRecord,
};
use crate::{
    error::{Error, Result},
    files,
    runs::{
        checkpoint::find::LATEST,
        folder::{CHECKPOINTS, PIPELINE_FILE},
        study_file::StudyFile,
    },
};

/// Bytes at the end of a log in which its last training step is searched for.
const TAIL: u64 = 1 << 18;

/// The runs in a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listing {
    /// The folder.
    pub folder: PathBuf,
    /// Its runs, the one that was written last first; the stages of a pipeline are runs of their own.
    pub runs: Vec<Brief>,
    /// Its studies, whose runs are among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub studies: Vec<StudyBrief>,
}

/// A study in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyBrief {
    /// Its folder within the listed one.
    pub study: String,
    /// Runs that are complete.
    pub complete: usize,
    /// Runs in its plan.
    pub runs: usize,
    /// The metric by which arms are compared.
    pub metric: String,
    /// The best arm, if any is complete.
    pub best: Option<String>,
    /// A line for each stage and run that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Brief {
    /// Its folder within the listed one: its name, or PIPELINE/STAGE.
    pub run: String,
    /// Its state.
    pub state: &'static str,
    /// Steps done.
    pub step: u64,
    /// Steps that the experiment asks for, if that is known.
    pub total: Option<u64>,
    /// Loss of the last step; absent if there is none or it is not finite.
    pub loss: Option<f64>,
    /// Seconds since its logs were written.
    pub age_s: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// The name of its last checkpoint.
    pub checkpoint: Option<String>,
    /// The rules of the alerts that are active at its last line, the one that stopped it included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<String>,
    /// Why it ended, if that was not as planned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
}

impl Listing {
    /// Lists the runs in `folder`.
    ///
    /// # Errors
    /// A request error if the folder cannot be read.
    pub fn read(folder: &Path) -> Result<Listing> {
        let failed = |cause| {
            Error::request(format!("cannot read {}", folder.display()))
                .with_cause(cause)
                .with_hint("name the folder that holds the runs; by default it is runs")
        };
        let mut found: Vec<(String, PathBuf)> = Vec::new();
        let mut studies = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if is_run(&path) {
                found.push((name, path));
                continue;
            }
            if StudyFile::is_in(&path) {
                studies.extend(StudyRecord::read(&path).ok().map(|study| StudyBrief::of(name.clone(), study)));
            }
            if path.join(PIPELINE_FILE).is_file() || StudyFile::is_in(&path) {
                let stages = fs::read_dir(&path).into_iter().flatten().flatten().filter(|stage| is_run(&stage.path()));
                found.extend(
                    stages.map(|stage| (format!("{name}/{}", stage.file_name().to_string_lossy()), stage.path())),
                );
            }
        }
        let mut runs: Vec<Brief> = found.into_iter().map(|(name, path)| Brief::read(name, &path)).collect();
        runs.sort_by(|a, b| (a.age_s, &a.run).cmp(&(b.age_s, &b.run)));
        studies.sort_by(|a: &StudyBrief, b| a.study.cmp(&b.study));
        Ok(Listing { folder: folder.to_owned(), runs, studies })
    }
}

impl StudyBrief {
    fn of(name: String, study: StudyRecord) -> StudyBrief {
        let (complete, runs) = study.progress();
        let StudyRecord { metric, best, failed, .. } = study;
        StudyBrief { study: name, complete, runs, metric: metric.to_string(), best, failed }
    }
}

impl fmt::Display for StudyBrief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "study {}: {} of {} runs complete", self.study, self.complete, self.runs)?;
        if !self.failed.is_empty() {
            write!(f, ", {} failed", self.failed.len())?;
        }
        match &self.best {
            Some(best) => write!(f, "; best by {}: {best}", self.metric),
            None => Ok(()),
        }
    }
}

impl Brief {
    fn read(run: String, folder: &Path) -> Brief {
        let text = files::read_to_string(&folder.join("experiment.toml")).unwrap_or_default();
        let experiment = text.parse::<toml::Table>().unwrap_or_default();
        let total = experiment.get("train").and_then(|train| train.get("steps")?.as_integer());
        let total = total.and_then(|total| total.try_into().ok());
        let metrics = folder.join("metrics.jsonl");
        let last = last_step(&metrics);
        let step = last.as_ref().and_then(|line| line.get("step")?.as_u64()).unwrap_or(0);
        let state = State::read(folder, step, total);
        let written = [&metrics, &folder.join("experiment.toml")].into_iter().find_map(|path| modified(path));
        // Whether it is intact is not checked: that would read every byte of it.
        let checkpoints = folder.join(CHECKPOINTS);
        let latest = files::read_to_string(&checkpoints.join(LATEST)).ok().map(|name| name.trim().to_owned());
        Brief {
            run,
            state: state.word(),
            step,
            total,
            loss: last.as_ref().and_then(|line| line.get("loss")?.as_f64()),
            age_s: written.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or(Duration::ZERO).as_secs(),
            bytes: size(folder),
            checkpoint: latest.filter(|name| checkpoints.join(name).is_dir()),
            alerts: active_alerts(folder),
            why: state.why(),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The last training step of a log, from its end.
fn last_step(path: &Path) -> Option<Value> {
    let mut file: File = files::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok()).find(|line| line["kind"] == "train")
}

/// Bytes of all files in a folder; links are not followed.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runs.is_empty() {
            return write!(f, "there are no runs in {}", self.folder.display());
        }
        let heads = ["run", "state", "steps", "last loss", "age", "size", "checkpoint", "alerts"].map(str::to_owned);
        let row = |brief: &Brief| {
            let dash = || "-".to_owned();
            [
                brief.run.clone(),
                brief.state.to_owned(),
                brief.total.map_or_else(|| brief.step.to_string(), |total| format!("{}/{total}", brief.step)),
                brief.loss.map_or_else(dash, short),
                age(brief.age_s),
                bytes(brief.bytes),
                brief.checkpoint.clone().unwrap_or_else(dash),
                brief.alerts.join(", "),
            ]
        };
        let rows: Vec<[String; 8]> = std::iter::once(heads).chain(self.runs.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        // The last column is shown only if a run has alerts.
        let columns = if self.runs.iter().all(|brief| brief.alerts.is_empty()) { 7 } else { 8 };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut lines = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                2..=5 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            });
            lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
            if let Some(why) = at.checked_sub(1).and_then(|at| self.runs[at].why.first()) {
                lines.push(format!("    {why}"));
            }
        }
        lines.extend(self.studies.iter().map(StudyBrief::to_string));
        f.write_str(&lines.join("\n"))
    }
}

/// A duration in its largest whole unit.
pub fn age(seconds: u64) -> String {
    match seconds {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// A number of bytes with its unit.
pub fn bytes(count: u64) -> String {
    match count as f64 {
        n if n >= 1e9 => format!("{:.2} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n => format!("{:.0} kB", (n / 1e3).ceil()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::end::{Ending, RunEnd};

    /// Catches a stage that is not listed, a last loss from an evaluation or an incomplete line, and a dead run without its reason.
    #[test]
    fn runs_are_listed_with_their_last_step() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let log =
            "{\"step\":7,\"kind\":\"train\",\"loss\":1.5}\n{\"step\":7,\"kind\":\"eval\",\"loss\":9}\n{\"step\":8,\"ki";
        write("one/experiment.toml", "[train]\nsteps = 8");
        write("one/metrics.jsonl", log);
        let alert = |name: &str, state: &str| {
            format!(
                "{{\"step\":5,\"kind\":\"alert\",\"name\":\"{name}\",\"metric\":\"m\",\"state\":\"{state}\",\"text\":\"\"}}\n"
            )
        };
        let alerts = [alert("kl-runaway", "begin"), alert("loss-spike", "begin"), alert("kl-runaway", "end")];
        write("one/timing.jsonl", &alerts.concat());
        write("pipe/pipeline.toml", "");
        write("pipe/b/experiment.toml", "");
        write("other/notes.txt", "");
        let error = Error::run("the data is gone");
        RunEnd::of(&error, Ending::Failed, 7).write(&folder.path().join("one")).unwrap();
        let listing = Listing::read(folder.path()).unwrap();
        let mut names: Vec<&str> = listing.runs.iter().map(|run| run.run.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["one", "pipe/b"]);
        let one = listing.runs.iter().find(|run| run.run == "one").unwrap();
        assert_eq!((one.state, one.step, one.total, one.loss), ("failed", 7, Some(8), Some(1.5)));
        assert!(listing.to_string().contains("the data is gone"), "{listing}");
        assert_eq!(one.alerts, ["loss-spike"]);
        let text = listing.to_string();
        let [heads, row] = ["run ", "one "].map(|begin| text.lines().find(|line| line.starts_with(begin)).unwrap());
        assert!(heads.ends_with("alerts") && row.ends_with("loss-spike"), "{text}");
        fs::remove_file(folder.path().join("one/timing.jsonl")).unwrap();
        assert!(!Listing::read(folder.path()).unwrap().to_string().contains("alerts"));
        assert!(Listing::read(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn ages_and_sizes_have_units() {
        assert_eq!([5, 150, 8000, 200_000].map(age), ["5 s", "2 min", "2 h", "2 days"]);
        assert_eq!([1, 2_500_000, 3_210_000_000].map(bytes), ["1 kB", "2.5 MB", "3.21 GB"]);
    }
}
