//! The job of a child process. Only the child loads the backend, so the report is complete even if the backend ends
//! its process.
//!
//! Parent and child exchange files in a folder that is created for one job; standard output belongs to the plugin,
//! which may print anything there.

use std::fs;
use std::path::Path;

use plugin_api::{
    Code,
    backend::{DType, Session, SessionOptions, catalogue::OpSpec, ops::CATALOGUE},
    manifest::BackendManifest,
    options::OptionMap,
};
use plugin_api_laws::{Report, backend};
use serde::{Deserialize, Serialize};

use super::failure::{Failure, Refusal};
use super::folder::Folder;
use super::law_job::{self, LawJob};
use super::place::Place;
use crate::config::{Override, options};
use crate::error::{Error, Kind, Result};

/// The group of checks that belong to no operation.
pub const SESSION: &str = "session";

/// The work that a child is started for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// A backend, compared with the reference.
    Backend(Job),
    /// An objective or a reward, checked against its laws.
    Laws(LawJob),
}

impl Work {
    /// The name of its first activity, before any check.
    pub fn beginning(&self) -> &'static str {
        match self {
            Work::Backend(_) => "opening a session",
            Work::Laws(_) => "loading the plugin",
        }
    }
}

/// One child's work on a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The backend to verify.
    pub backend: Place,
    /// The reference.
    pub reference: Place,
    /// Device, as the backend names it.
    pub device: String,
    /// Threads, at least 1.
    pub threads: usize,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// Load both plugins, check the options and open a session.
    Open {
        /// As given on the command line, `key=value`.
        options: Vec<String>,
    },
    /// Check one group of laws.
    Check {
        /// The backend's options, with every default filled in.
        options: OptionMap,
        /// The compute dtype.
        dtype: String,
        /// An operation's name, or [`SESSION`].
        group: String,
        /// Checks to leave out, by their name in [`Folder::reached`]: each of them ended an earlier process.
        skip: Vec<String>,
    },
}

/// A child's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It can be opened.
    Opened {
        /// The backend's manifest.
        manifest: BackendManifest,
        /// Its options, with every default filled in.
        options: OptionMap,
    },
    /// The result of the laws.
    Checked(Report),
    /// The device was lost during a check, so later results are not valid.
    Lost(Failure),
    /// The job could not be done.
    Refused(Refusal),
}

/// The child's part: does the job in `folder` and writes the answer there.
///
/// # Errors
/// A folder that was not created by a parent.
pub fn perform(folder: &Path) -> Result<()> {
    let folder = Folder(folder.to_owned());
    let job = match folder.read(Folder::JOB)? {
        Work::Backend(job) => job,
        Work::Laws(job) => return law_job::perform(&job, &folder),
    };
    let answer = match &job.task {
        Task::Open { options } => open(&job, options),
        Task::Check { options, dtype, group, skip } => check(&job, options, dtype, group, skip, &folder),
    };
    folder.write(Folder::ANSWER, &answer.unwrap_or_else(|error| Answer::Refused(error.into())))
}

fn open(job: &Job, given: &[String]) -> Result<Answer> {
    let manifest = job.backend.load()?.backend_manifest()?;
    let given: std::result::Result<Vec<Override>, String> = given.iter().map(|text| Override::option(text)).collect();
    let options = options::from_command_line(&manifest.options, &given.map_err(Error::request)?)?;
    session(job, &options, 1).map_err(|error| match error.kind() {
        Kind::Request => error.with_details(devices(&manifest)),
        _ => error,
    })?;
    reference(job)?;
    Ok(Answer::Opened { manifest, options })
}

/// The manifest's devices, for an error message.
fn devices(manifest: &BackendManifest) -> Vec<String> {
    let names = |compiled: bool| {
        let names = manifest.devices.iter().filter(|device| device.compiled == compiled);
        names.map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let line = |label: &str, names: String| (!names.is_empty()).then(|| format!("devices {label}: {names}"));
    [line("compiled in", names(true)), line("not compiled in", names(false))].into_iter().flatten().collect()
}

/// A session of the backend whose handles carry `tag`.
fn session(job: &Job, options: &OptionMap, tag: u16) -> Result<Box<dyn Session>> {
    let Job { device, threads, .. } = job;
    let options = SessionOptions { device: device.clone(), threads: *threads, tag, options: options.clone() };
    Ok(Box::new(job.backend.load()?.session(&options)?))
}

fn reference(job: &Job) -> Result<Box<dyn Session>> {
    let options = SessionOptions { tag: 9, ..SessionOptions::default() };
    let opened = job.reference.load().and_then(|library| Ok(library.session(&options)?));
    Ok(Box::new(opened.map_err(|error| error.context("the reference backend cannot be used"))?))
}

fn check(job: &Job, options: &OptionMap, dtype: &str, group: &str, skip: &[String], folder: &Folder) -> Result<Answer> {
    let dtype = DType::from_name(dtype).ok_or_else(|| Error::request(format!("dtype {dtype} is unknown")))?;
    let mut candidate = session(job, options, 1)?;
    if group == SESSION {
        return Ok(Answer::Checked(backend::verify_session(&mut *candidate, dtype)));
    }
    let spec = CATALOGUE.iter().find(|spec| spec.name == group);
    let id = spec.ok_or_else(|| Error::request(format!("there is no operation `{group}`")))?.id;
    let wanted = |spec: &OpSpec| spec.id == id;
    let (at, left_out) = (folder.clone(), skip.to_vec());
    let suite = backend::Suite::prepare(&mut *reference(job)?, dtype, wanted)?.watched(move |case| {
        let wanted = !left_out.iter().any(|skipped| skipped == case);
        if wanted {
            at.reached(case);
        }
        wanted
    });
    let mut report = suite.verify(&mut *candidate, wanted);
    if let Err(error) = candidate.sync()
        && error.code == Code::LOST
    {
        let at = folder.last_reached().unwrap_or_default();
        return Ok(Answer::Lost(Failure { at, text: error.to_string(), exited: true }));
    }
    let mut other = session(job, options, 2)?;
    let mut add = |more: Report| report.lines.extend(more.lines);
    add(suite.verify_repeatability(&mut *candidate, &mut *other, wanted));
    drop(other);
    if dtype == DType::F64 {
        folder.reached("gradients by finite differences");
        add(backend::verify_gradients_of(&mut *candidate, &wanted));
    }
    add(suite.verify_growth(&mut *candidate, wanted, &mut resident));
    folder.reached("closing the session");
    drop(candidate);
    Ok(Answer::Checked(report))
}

/// Bytes of memory that this process uses, if the system reports it.
fn resident() -> Option<u64> {
    let maps = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = maps.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
