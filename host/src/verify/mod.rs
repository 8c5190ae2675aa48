//! `telos plugins verify`: compares a backend with the f64 reference by the laws of `plugin_api_laws::backend`;
//! checks an objective or a reward against its laws ([`laws`]).
//!
//! Each operation is checked in its own process for each dtype ([`process`], [`job`]). If a backend crashes, exits
//! or never returns, that operation fails, and the others are still reported. This process never loads the backend.

pub mod failure;
pub mod folder;
pub mod job;
pub mod law_job;
mod law_table;
pub mod laws;
pub mod place;
pub mod process;
mod table;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plugin_api::{
    backend::ops::CATALOGUE,
    manifest::{BackendManifest, kind},
    options::OptionMap,
};
use plugin_api_laws::{Agreement, Line, Report};
use plugin_api_load::{PluginInfo, scan};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    keys::mistake::suggestion,
    plugins::Registry,
    runs::receipt::PluginUse,
    setup::loading::used,
};
use failure::Failure;
use job::{Answer, Job, SESSION, Task, Work};
use place::Place;
use process::Ended;

/// Id of the backend that the others are compared with.
const REFERENCE: &str = "reference";
/// The group of checks that do not depend on a dtype.
const OPEN: &str = "open";
/// The most processes of one group that may end before their report; after that the rest of the group is not
/// checked.
const MOST_ENDS: usize = 8;
/// The most processes at a time; fewer on a machine with fewer cores.
const AT_ONCE: usize = 4;

/// What to verify.
#[derive(Debug, Clone)]
pub struct Request {
    /// Device, as the backend names it.
    pub device: String,
    /// The compute dtype; `None`: every one in the backend's manifest.
    pub dtype: Option<String>,
    /// Options of the backend, `key=value`.
    pub options: Vec<String>,
    /// Operations, or `session`; empty: everything.
    pub only: Vec<String>,
    /// Threads of the backend's sessions, at least 1.
    pub threads: usize,
    /// Time limit for one group.
    pub limit: Duration,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Whether every law passes.
    pub passed: bool,
    /// The backend.
    pub backend: PluginUse,
    /// The backend that it was compared with.
    pub reference: PluginUse,
    /// The device used.
    pub device: String,
    /// Threads of its sessions.
    pub threads: usize,
    /// Its options, with every default filled in.
    pub options: OptionMap,
    /// What was checked, by dtype and operation.
    pub groups: Vec<Group>,
}

/// The checks of one operation, or of the session, in one dtype.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// The compute dtype; empty if the backend could not be opened at all.
    pub dtype: String,
    /// The operation, `session` or `open`.
    pub name: String,
    /// Whether every check passed, and there was one.
    pub passed: bool,
    /// Number of checks.
    pub checks: usize,
    /// Number of failed checks.
    pub failed: usize,
    /// The error that is largest relative to its limit.
    pub worst: Option<Agreement>,
    /// Every check.
    pub lines: Vec<Line>,
}

impl Group {
    fn new(dtype: &str, name: &str, report: Report) -> Group {
        let worst = report.lines.iter().filter_map(|line| line.agreement).reduce(Agreement::worse);
        Group {
            dtype: dtype.to_owned(),
            name: name.to_owned(),
            passed: report.is_ok(),
            checks: report.lines.len(),
            failed: report.failures().count(),
            worst,
            lines: report.lines,
        }
    }

    /// Builds a group from its last child's result; `ends` are the checks that ended the processes before it.
    fn from_child(dtype: &str, name: &str, ended: Result<Ended>, ends: &[Failure]) -> Group {
        let mut report = Report::default();
        let mut fail = |case: &str, text: String| report.push(name, case, Err(text));
        match ended {
            Err(error) => fail("the process", error.report().trim_end().to_owned()),
            Ok(Ended { answer, failure }) => {
                match answer {
                    Some(Answer::Checked(checked)) => report = checked,
                    Some(Answer::Refused(refusal)) => {
                        fail("the session", Error::from(refusal).report().trim_end().to_owned());
                    }
                    Some(Answer::Lost(end)) => report.push(name, &end.at, Err(end.text)),
                    Some(Answer::Opened { .. }) | None => {}
                }
                if let Some(failure) = failure {
                    report.push(name, &failure.at, Err(failure.text));
                }
            }
        }
        let missing: Vec<&Failure> =
            ends.iter().filter(|end| report.lines.iter().all(|line| line.case != end.at)).collect();
        for end in missing {
            report.push(name, &end.at, Err(end.text.clone()));
        }
        Group::new(dtype, name, report)
    }
}

/// Verifies `backend`. Calls `done` with the number of finished groups, their total and the name of one that begins or has ended.
///
/// # Errors
/// Request errors: an unknown plugin, device, dtype, option or operation. The backend's failures are in the result.
pub fn verify(
    request: &Request,
    registry: &Registry,
    backend: &PluginInfo,
    done: &(dyn Fn(usize, usize, &str) + Sync),
) -> Result<Verification> {
    let names = group_names(&request.only)?;
    let reference = registry
        .find(kind::BACKEND, REFERENCE)
        .map_err(|error| error.context("backends are compared with the reference backend, which is missing"))?;
    for info in [backend, reference] {
        info.check_version()?;
    }
    let places = (Place::of(backend)?, Place::of(reference)?);
    let mut verification = Verification {
        passed: false,
        backend: used(backend, places.0.sha256().to_owned()),
        reference: used(reference, places.1.sha256().to_owned()),
        device: request.device.clone(),
        threads: request.threads,
        options: OptionMap::new(),
        groups: Vec::new(),
    };
    let job = |task: Task| {
        Work::Backend(Job {
            backend: places.0.clone(),
            reference: places.1.clone(),
            device: request.device.clone(),
            threads: request.threads,
            task,
        })
    };
    let opened = process::run(&job(Task::Open { options: request.options.clone() }), request.limit)?;
    let (manifest, options) = match opened {
        Ended { answer: Some(Answer::Refused(refusal)), .. } => return Err(refusal.into()),
        Ended { answer: Some(Answer::Opened { manifest, options }), failure: None } => (manifest, options),
        ended => {
            verification.groups.push(Group::from_child("", OPEN, Ok(ended), &[]));
            return Ok(verification);
        }
    };
    let check = |dtype: &str, name: &str| {
        let run = |skip: &[String]| {
            let (options, dtype, group, skip) = (options.clone(), dtype.to_owned(), name.to_owned(), skip.to_vec());
            process::run(&job(Task::Check { options, dtype, group, skip }), request.limit)
        };
        checked(dtype, name, run)
    };
    let dtypes = dtypes(request, &manifest)?;
    verification.groups = all(&dtypes, &names, check, done);
    verification.passed = verification.groups.iter().all(|group| group.passed);
    verification.options = options;
    Ok(verification)
}

/// Runs a group in new processes until one completes. Each check that ended its process becomes one failed line,
/// and the next process leaves it out.
fn checked(dtype: &str, name: &str, run: impl Fn(&[String]) -> Result<Ended>) -> Group {
    let mut ends: Vec<Failure> = Vec::new();
    loop {
        let skip: Vec<String> = ends.iter().map(|end| end.at.clone()).collect();
        let ended = run(&skip);
        let end = match &ended {
            Ok(Ended { answer: Some(Answer::Lost(end)), .. }) => Some(end.clone()),
            Ok(Ended { answer: None, failure: Some(end) }) => Some(end.clone()),
            _ => None,
        };
        let again = end.is_some_and(|end| {
            let repeatable = end.exited && !skip.contains(&end.at) && ends.len() < MOST_ENDS;
            if repeatable {
                ends.push(end);
            }
            repeatable
        });
        if !again {
            return Group::from_child(dtype, name, ended, &ends);
        }
    }
}

/// The requested groups, in the catalogue's order.
fn group_names(only: &[String]) -> Result<Vec<&'static str>> {
    let all: Vec<&'static str> = CATALOGUE.iter().map(|spec| spec.name).chain([SESSION]).collect();
    if let Some(wrong) = only.iter().find(|name| !all.contains(&name.as_str())) {
        let message = format!("there is no operation `{wrong}`");
        return Err(Error::request(message).with_hint(suggestion(wrong, all.iter().copied())));
    }
    Ok(all.into_iter().filter(|name| only.is_empty() || only.iter().any(|o| o == name)).collect())
}

/// Kinds of plugins that can be verified.
const KINDS: [&str; 3] = [kind::BACKEND, kind::OBJECTIVE, kind::REWARD];

/// Returns the plugin that `target` refers to: an id, or the file of a library that contains one.
///
/// # Errors
/// A request error: no plugin of that name, or several.
pub fn find(registry: &Registry, target: &str) -> Result<PluginInfo> {
    let path = Path::new(target);
    let is_file =
        target.contains(std::path::MAIN_SEPARATOR) || path.extension().is_some_and(|e| e == "so" || e == "dylib");
    if !is_file {
        let found = registry.find_any(target)?;
        let [one] = found.as_slice() else {
            let held: Vec<String> = found.iter().map(|info| format!("{} {}", info.kind, info.path.display())).collect();
            return Err(Error::request(format!("several plugins are called `{target}`: {}", held.join(", ")))
                .with_hint("give the file of one of them"));
        };
        return Ok((*one).clone());
    }
    if !path.is_file() {
        return Err(Error::request(format!("there is no file {target}")).with_hint("check the path, or give an id"));
    }
    let path = std::path::absolute(path)
        .map_err(|cause| Error::request(format!("{target} is not a usable path")).with_cause(cause))?;
    let found = scan(&path)?;
    let held: Vec<String> = found.iter().map(|info| format!("{} `{}`", info.kind, info.id)).collect();
    let mut known: Vec<PluginInfo> = found.into_iter().filter(|info| KINDS.contains(&info.kind.as_str())).collect();
    match (known.pop(), known.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(_), false) => Err(Error::request(format!("{target} contains several plugins: {}", held.join(", ")))
            .with_hint("name one of them, and its folder with --plugins DIR")),
        (None, _) => {
            let held = if held.is_empty() { "no plugin".to_owned() } else { held.join(", ") };
            Err(Error::request(format!("{target} contains {held}"))
                .with_hint("give the library of a backend, an objective or a reward"))
        }
    }
}

fn dtypes(request: &Request, manifest: &BackendManifest) -> Result<Vec<String>> {
    let offered = manifest.dtypes.join(", ");
    match &request.dtype {
        Some(dtype) if !manifest.dtypes.contains(dtype) => {
            let message = format!("backend `{}` computes in {offered}, not in {dtype}", manifest.id);
            Err(Error::request(message).with_hint("choose another --dtype"))
        }
        Some(dtype) => Ok(vec![dtype.clone()]),
        None if manifest.dtypes.is_empty() => {
            Err(Error::request(format!("backend `{}` lists no dtype in its manifest", manifest.id))
                .with_hint("complete the plugin's manifest"))
        }
        None => Ok(manifest.dtypes.clone()),
    }
}

/// Runs every group of every dtype, a few processes at a time; returns the results in order.
fn all(
    dtypes: &[String],
    names: &[&'static str],
    check: impl Fn(&str, &str) -> Group + Sync,
    done: &(dyn Fn(usize, usize, &str) + Sync),
) -> Vec<Group> {
    let work: Vec<(&str, &'static str)> =
        dtypes.iter().flat_map(|dtype| names.iter().map(|name| (dtype.as_str(), *name))).collect();
    side_by_side(&work, |(dtype, name)| check(dtype, name), |(_, name)| name, done)
}

/// Calls `run` for every piece of work, a few processes at a time; returns the results in the order of the work. `done` gets the
/// name of every piece when it begins and when it has ended.
fn side_by_side<W: Copy + Sync, R: Send>(
    work: &[W],
    run: impl Fn(W) -> R + Sync,
    name: impl Fn(W) -> &'static str + Sync,
    done: &(dyn Fn(usize, usize, &str) + Sync),
) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(work.len())));
    std::thread::scope(|scope| {
        for _ in 0..cores.min(AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(piece) = work.get(at) else { return };
                    let so_far = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).len();
                    done(so_far, work.len(), name(*piece));
                    let result = run(*piece);
                    let mut results = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    results.push((at, result));
                    done(results.len(), work.len(), name(*piece));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
