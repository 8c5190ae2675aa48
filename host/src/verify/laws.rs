//! `telos plugins verify` for an objective or a reward: each law in its own process, under several option sets.
//!
//! This process never loads the plugin. If a plugin crashes, ends the process or never returns, the law being
//! checked fails, and the others are still reported.

use std::time::Duration;

use plugin_api::manifest::kind;
use plugin_api_laws::{Agreement, Line, Report, objective, reward};
use plugin_api_load::PluginInfo;
use serde::Serialize;

use super::{
    job::Work,
    law_job::{DrawnColumn, LawAnswer, LawJob, LawTask, Setting},
    place::Place,
    process::{self, Ended},
    side_by_side,
};
use crate::{
    error::{Error, Result},
    keys::mistake::suggestion,
    runs::receipt::PluginUse,
    setup::loading::used,
};

/// What to verify, and with which inputs.
#[derive(Debug, Clone)]
pub struct LawRequest {
    /// Options of the plugin, `key=value`; the others are varied one at a time.
    pub options: Vec<String>,
    /// Laws; empty: all.
    pub only: Vec<String>,
    /// Columns of the data that an objective reads.
    pub columns: Vec<DrawnColumn>,
    /// Prompts that a reward accepts.
    pub prompts: Vec<String>,
    /// Size of the vocabulary of generated data; `None`: the generator's own.
    pub vocabulary: Option<u32>,
    /// Time limit for one law.
    pub limit: Duration,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LawVerification {
    /// Whether every law passes.
    pub passed: bool,
    /// The plugin.
    pub plugin: PluginUse,
    /// The option sets that laws were checked under.
    pub options: Vec<String>,
    /// Columns of the generated data, `NAME=LOW..HIGH`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Every law, in order.
    pub laws: Vec<LawResult>,
}

/// One law.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LawResult {
    /// Its name.
    pub name: String,
    /// What it means.
    pub meaning: String,
    /// Whether it passes under every option set.
    pub passed: bool,
    /// Option sets that it was checked under.
    pub checks: usize,
    /// Number of option sets that break it.
    pub failed: usize,
    /// The error that is largest relative to its limit, if the law is about numbers.
    pub worst: Option<Agreement>,
    /// Every check.
    pub lines: Vec<Line>,
}

impl LawResult {
    fn new(name: &str, meaning: &str, report: Report) -> LawResult {
        LawResult {
            name: name.to_owned(),
            meaning: meaning.to_owned(),
            passed: report.is_ok(),
            checks: report.lines.len(),
            failed: report.failures().count(),
            worst: report.lines.iter().filter_map(|line| line.agreement).reduce(Agreement::worse),
            lines: report.lines,
        }
    }

    fn from_child(name: &str, meaning: &str, ended: Result<Ended<LawAnswer>>) -> LawResult {
        let mut report = Report::default();
        let refused = |error: Error| error.report().trim_end().to_owned();
        match ended {
            Err(error) => report.push(name, "the process", Err(refused(error))),
            Ok(Ended { answer, failure }) => {
                match answer {
                    Some(LawAnswer::Checked(checked)) => report = checked,
                    Some(LawAnswer::Refused(refusal)) => report.push(name, "the plugin", Err(refused(refusal.into()))),
                    Some(LawAnswer::Described(_)) | None => {}
                }
                if let Some(failure) = failure {
                    report.push(name, &failure.at, Err(failure.text));
                }
            }
        }
        LawResult::new(name, meaning, report)
    }
}

/// Name and meaning of the line for a plugin that cannot even be described.
const LOAD: (&str, &str) = ("load", "it loads, returns its manifest and creates an instance");

/// Verifies an objective or a reward; calls `done` with the number of finished laws, their total and the name of one
/// that begins or has ended.
///
/// # Errors
/// Request errors: an unknown option, law or column, or a reward that scores none of the samples. The plugin's own
/// failures are in the result.
pub fn verify(
    request: &LawRequest,
    info: &PluginInfo,
    done: &(dyn Fn(usize, usize, &str) + Sync),
) -> Result<LawVerification> {
    info.check_version()?;
    let all = if info.kind == kind::OBJECTIVE { objective::LAWS } else { reward::LAWS };
    let laws = chosen(all, &request.only)?;
    refuse_unused(request, info)?;
    let place = Place::of(info)?;
    let work = |task: LawTask| Work::Laws(LawJob { plugin: place.clone(), kind: info.kind.clone(), task });
    let mut verification = LawVerification {
        passed: false,
        plugin: used(info, place.sha256().to_owned()),
        options: Vec::new(),
        columns: Vec::new(),
        laws: Vec::new(),
    };
    let describe = LawTask::Describe {
        options: request.options.clone(),
        columns: request.columns.clone(),
        prompts: request.prompts.clone(),
    };
    done(0, laws.len(), LOAD.0);
    let setting: Setting = match process::run::<LawAnswer>(&work(describe), request.limit)? {
        Ended { answer: Some(LawAnswer::Refused(refusal)), .. } => return Err(refusal.into()),
        Ended { answer: Some(LawAnswer::Described(setting)), failure: None } => setting,
        ended => {
            verification.laws.push(LawResult::from_child(LOAD.0, LOAD.1, Ok(ended)));
            return Ok(verification);
        }
    };
    let setting = Setting { vocabulary: request.vocabulary, ..setting };
    // A plugin that ends the process here also does so in a law, and is reported there.
    let probe = process::run::<LawAnswer>(&work(LawTask::Probe { setting: setting.clone() }), request.limit)?;
    let setting = match probe {
        Ended { answer: Some(LawAnswer::Refused(refusal)), .. } => return Err(refusal.into()),
        Ended { answer: Some(LawAnswer::Described(found)), .. } => found,
        _ => setting,
    };
    let check = |(law, meaning): (&'static str, &'static str)| {
        let task = LawTask::Check { law: law.to_owned(), setting: setting.clone() };
        LawResult::from_child(law, meaning, process::run(&work(task), request.limit))
    };
    verification.laws = side_by_side(&laws, check, |(law, _)| law, done);
    verification.passed = verification.laws.iter().all(|law| law.passed);
    verification.options = setting.told;
    verification.columns = setting.columns.iter().map(DrawnColumn::notation).collect();
    Ok(verification)
}

fn chosen(all: &'static [(&'static str, &'static str)], only: &[String]) -> Result<Vec<(&'static str, &'static str)>> {
    if let Some(wrong) = only.iter().find(|name| !all.iter().any(|(law, _)| law == name)) {
        let message = format!("there is no law `{wrong}`");
        return Err(Error::request(message).with_hint(suggestion(wrong, all.iter().map(|(law, _)| *law))));
    }
    Ok(all.iter().filter(|(law, _)| only.is_empty() || only.iter().any(|name| name == law)).copied().collect())
}

/// Refuses flags that only apply to the other kind, instead of ignoring them.
fn refuse_unused(request: &LawRequest, info: &PluginInfo) -> Result<()> {
    let unused = match info.kind.as_str() {
        kind::OBJECTIVE if !request.prompts.is_empty() => "--prompt is for rewards",
        kind::REWARD if !request.columns.is_empty() => "--column is for objectives; a reward declares its columns",
        _ => return Ok(()),
    };
    Err(Error::request(format!("{unused}, and `{}` is of kind {}", info.id, info.kind)))
}
