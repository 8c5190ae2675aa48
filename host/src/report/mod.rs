//! `telos report`: runs as one HTML page that needs no network and no other file.
//!
//! [`record`] reads the files of a run, whatever state they are in; [`charts`] decides which curves share a chart; [`health`] says
//! where metrics left their ranges, [`distributions`] draws histograms, [`samples`] sets answers side by side, [`listing`] is `telos runs`, [`prune`]
//! is `telos runs prune`, [`figure`] is
//! `telos plot`, [`export`] is `telos export`, [`tables`] has what is printed as tables, [`study`] compares the arms of a
//! study; [`page`] writes
//! all of it as HTML, and `page/page.js` draws the charts in the browser.

pub mod charts;
pub mod distributions;
pub mod export;
pub mod figure;
pub mod health;
pub mod listing;
mod operations;
pub mod page;
pub mod prune;
pub mod record;
pub mod samples;
pub mod study;
pub mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::{
    error::{Error, Result},
    files,
    runs::{folder::PIPELINE_FILE, study_file::StudyFile},
};
use record::{RunRecord, is_run};
use study::StudyRecord;

/// A run, and its name in the report.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// Its name, different from those of the other runs of its group.
    pub label: String,
    /// The run.
    pub run: RunRecord,
}

/// Runs that are shown over one another: single runs, or the runs of one stage of several pipelines.
#[derive(Debug, Clone)]
pub struct Group {
    /// The stage; empty for single runs.
    pub title: String,
    /// The runs.
    pub runs: Vec<Labelled>,
}

/// The content of a report.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its title.
    pub title: String,
    /// Its groups: that of single runs, and the stages in the order of the first pipeline that has them.
    pub groups: Vec<Group>,
    /// What is missing in the folders of pipelines.
    pub remarks: Vec<String>,
    /// The studies among the folders; their runs are in the groups.
    pub studies: Vec<StudyRecord>,
}

impl Report {
    /// Reads the runs, pipelines and studies in `folders`.
    ///
    /// # Errors
    /// A request error for a folder that is none of them.
    pub fn read(folders: &[PathBuf]) -> Result<Report> {
        let (mut groups, mut remarks): (Vec<Group>, Vec<String>) = (Vec::new(), Vec::new());
        let mut known = BTreeSet::new();
        let mut studies = Vec::new();
        for folder in folders {
            if !known.insert(fs::canonicalize(folder).unwrap_or_else(|_| folder.clone())) {
                remarks.push(format!("{} is named twice and shown once", folder.display()));
                continue;
            }
            let mut add = |title: String, label: String, run: RunRecord| {
                let labelled = Labelled { label, run };
                match groups.iter_mut().find(|group| group.title == title) {
                    Some(group) => group.runs.push(labelled),
                    None => groups.push(Group { title, runs: vec![labelled] }),
                }
            };
            if StudyFile::is_in(folder) {
                let study = StudyRecord::read(folder)?;
                let name = name_of(folder);
                for stage in &study.plan.stages {
                    match folder.join(stage) {
                        run if is_run(&run) => add(stage.clone(), name.clone(), RunRecord::read(&run)?),
                        _ => remarks.push(format!("{name}: the stage {stage} has not begun")),
                    }
                }
                for run in study.plan.runs().map(|run| &run.name) {
                    match folder.join(run) {
                        own if is_run(&own) => add(String::new(), run.clone(), RunRecord::read(&own)?),
                        _ => remarks.push(format!("{name}: the run {run} has not begun")),
                    }
                }
                studies.push(study);
            } else if folder.join(PIPELINE_FILE).is_file() {
                let name = name_of(folder);
                for stage in stages(folder, &mut remarks) {
                    match folder.join(&stage) {
                        run if is_run(&run) => add(stage, name.clone(), RunRecord::read(&run)?),
                        _ => remarks.push(format!("{name}: the stage {stage} has not begun")),
                    }
                }
            } else if is_run(folder) {
                let run = RunRecord::read(folder)?;
                add(String::new(), run.name.clone(), run);
            } else {
                return Err(not_a_run(folder));
            }
        }
        distinguish(&mut groups);
        groups.sort_by_key(|group| !group.title.is_empty());
        let mut names: Vec<String> = folders.iter().map(|folder| name_of(folder)).collect();
        names.dedup();
        Ok(Report { title: names.join(", "), groups, remarks, studies })
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &Labelled> {
        self.groups.iter().flat_map(|group| &group.runs)
    }

    /// All runs, each with a name that no other run of the report has.
    pub fn named(&self) -> impl Iterator<Item = (String, &RunRecord)> {
        let name = |group: &Group, label: &String| match group.title.as_str() {
            "" => label.clone(),
            stage if group.runs.len() == 1 => stage.to_owned(),
            stage => format!("{stage}: {label}"),
        };
        self.groups.iter().flat_map(move |group| group.runs.iter().map(move |own| (name(group, &own.label), &own.run)))
    }
}

impl Report {
    /// A line for each run of whose metrics or timing lines were left out because they are damaged; the page lists them with other
    /// remarks.
    pub fn left_out(&self) -> impl Iterator<Item = String> {
        let of_run = |(name, run): (String, &RunRecord)| {
            run.left_out.iter().map(|text| format!("{name}: {text}")).collect::<Vec<String>>()
        };
        self.named().flat_map(of_run)
    }
}

/// Names runs and pipelines by their folders where their names are equal.
fn distinguish(groups: &mut [Group]) {
    let owner = |title: &str, run: &RunRecord| match title {
        "" => run.folder.clone(),
        _ => run.folder.parent().unwrap_or(&run.folder).to_owned(),
    };
    let labels =
        groups.iter().flat_map(|group| group.runs.iter().map(|own| (&own.label, owner(&group.title, &own.run))));
    let mut owners: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    labels.for_each(|(label, folder)| _ = owners.entry(label.clone()).or_default().insert(folder));
    for group in groups {
        for own in &mut group.runs {
            if owners.get(&own.label).is_some_and(|folders| folders.len() > 1) {
                own.label = owner(&group.title, &own.run).display().to_string();
            }
        }
    }
}

/// The folder's own name, also of `.` and of a path that ends with `..`.
fn name_of(folder: &Path) -> String {
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
}

/// The names of a pipeline's stages in order; without a readable file, the folders that are runs, by name.
fn stages(folder: &Path, remarks: &mut Vec<String>) -> Vec<String> {
    let text = files::read_to_string(&folder.join(PIPELINE_FILE)).map_err(|cause| cause.to_string());
    let table = text.and_then(|text| text.parse::<Table>().map_err(|cause| cause.message().to_owned()));
    let names = table.map(|table| {
        let stages = table.get("stage").and_then(Value::as_array).cloned().unwrap_or_default();
        stages.iter().filter_map(|stage| Some(stage.get("name")?.as_str()?.to_owned())).collect::<Vec<_>>()
    });
    names.unwrap_or_else(|why| {
        remarks.push(format!("{PIPELINE_FILE} of {} cannot be read: {why}", name_of(folder)));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| is_run(&entry.path()));
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    })
}

fn not_a_run(folder: &Path) -> Error {
    let what = if folder.exists() { "is not a run, a pipeline or a study" } else { "does not exist" };
    let error = Error::request(format!("{} {what}", folder.display()));
    let mut runs: Vec<String> = Vec::new();
    for parent in [folder, folder.parent().unwrap_or(Path::new("."))] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
        let known = |path: &PathBuf| is_run(path) || path.join(PIPELINE_FILE).is_file() || StudyFile::is_in(path);
        runs.extend(entries.filter(known).map(|path| path.display().to_string()));
    }
    runs.sort();
    runs.dedup();
    runs.truncate(8);
    match runs.is_empty() {
        true => error.with_hint("name the folder of a run, a pipeline or a study, such as runs/NAME"),
        false => error.with_hint(format!("runs near it: {}", runs.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// Catches stages in alphabetical order, a stage that has not begun and is forgotten, and runs of one name that cannot be told
    /// apart.
    #[test]
    fn stages_of_pipelines_are_grouped_in_their_order() {
        let folder = folder_with(&[
            ("p/pipeline.toml", "[[stage]]\nname = \"z\"\n[[stage]]\nname = \"a\"\n[[stage]]\nname = \"later\""),
            ("p/z/experiment.toml", "name = \"p/z\""),
            ("p/a/experiment.toml", "name = \"p/a\""),
            ("q/pipeline.toml", "[[stage]]\nname = \"a\""),
            ("q/a/experiment.toml", "name = \"q/a\""),
            ("one/experiment.toml", "name = \"same\""),
            ("two/experiment.toml", "name = \"same\""),
        ]);
        let at = |name: &str| folder.path().join(name);
        let report = Report::read(&["p", "q", "one", "two", "./one"].map(at)).unwrap();
        let groups: Vec<(&str, usize)> = report.groups.iter().map(|g| (g.title.as_str(), g.runs.len())).collect();
        assert_eq!(groups, [("", 2), ("z", 1), ("a", 2)]);
        assert!(report.groups[0].runs[0].label.ends_with("one") && report.groups[0].runs[1].label.ends_with("two"));
        assert_eq!(report.groups[2].runs.iter().map(|run| run.label.as_str()).collect::<Vec<_>>(), ["p", "q"]);
        let [later, twice] = &report.remarks[..] else { panic!("two remarks") };
        assert!(later == "p: the stage later has not begun" && twice.ends_with("one is named twice and shown once"));
        let names: Vec<String> = report.named().map(|(name, _)| name).collect();
        assert_eq!(names[2..], ["z", "a: p", "a: q"]);
    }

    /// Catches an error that does not say which runs there are.
    #[test]
    fn a_folder_without_a_run_is_refused_with_the_runs_near_it() {
        let folder = folder_with(&[("runs/mine/experiment.toml", "")]);
        let error = Report::read(&[folder.path().join("runs")]).unwrap_err();
        assert!(error.report().contains("mine"), "{}", error.report());
        let error = Report::read(&[folder.path().join("runs/other")]).unwrap_err();
        assert!(error.message().contains("does not exist") && error.report().contains("mine"), "{}", error.report());
    }
}
