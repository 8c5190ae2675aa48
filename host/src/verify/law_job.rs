//! An objective or a reward in a child process: reads its description, or checks one law under every option set.

use plugin_api::{
    batch::{Scope, names},
    manifest::{DataKind, OptionSpec, kind},
    objective::Objective,
    options::OptionMap,
};
use plugin_api_laws::{Report, objective, reward, told, variations};
use plugin_api_load::Library;
use serde::{Deserialize, Serialize};

use super::{failure::Refusal, folder::Folder, place::Place};
use crate::{
    config::{Override, options},
    error::{Error, Result},
    objectives::active::{not_offered, offered_statistics},
};

/// One child's work on an objective or a reward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LawJob {
    /// The plugin.
    pub plugin: Place,
    /// Its kind.
    pub kind: String,
    /// What to do.
    pub task: LawTask,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LawTask {
    /// Check the options, and find the option sets and columns to verify with.
    Describe {
        /// As given on the command line, `key=value`.
        options: Vec<String>,
        /// Columns that the user describes.
        columns: Vec<DrawnColumn>,
        /// Prompts that a reward accepts.
        prompts: Vec<String>,
    },
    /// Find the columns that an objective reads, and whether a reward scores the samples, by the first calls of an
    /// instance.
    Probe {
        /// What is known so far.
        setting: Setting,
    },
    /// Check one law.
    Check {
        /// Its name.
        law: String,
        /// What to check it with.
        setting: Setting,
    },
}

/// The inputs with which laws are checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Option sets; the first one has the requested options.
    pub cases: Vec<OptionMap>,
    /// The same as text.
    pub told: Vec<String>,
    /// Columns of generated data.
    pub columns: Vec<DrawnColumn>,
    /// Prompts that a reward accepts; empty: an arithmetic question.
    pub prompts: Vec<String>,
    /// Size of the vocabulary; `None`: the generator's own.
    pub vocabulary: Option<u32>,
}

/// A numeric column of generated data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrawnColumn {
    /// Its name in the data, without `column.`.
    pub name: String,
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    /// Whether values are whole numbers.
    pub whole: bool,
}

impl DrawnColumn {
    /// `NAME=LOW..HIGH`; whole numbers if both ends are written without a decimal point.
    ///
    /// # Errors
    /// Another form, as text.
    pub fn parse(text: &str) -> std::result::Result<DrawnColumn, String> {
        let wrong = || format!("expected NAME=LOW..HIGH, for example margin=0.0..2.0 or level=1..5; found {text:?}");
        let (name, range) = text.split_once('=').ok_or_else(wrong)?;
        let (low, high) = range.split_once("..").ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(wrong);
        let whole = [low, high].iter().all(|end| end.trim().parse::<i32>().is_ok());
        let name = name.trim().trim_start_matches(names::COLUMN).to_owned();
        let (low, high) = (number(low)?, number(high)?);
        if name.is_empty() || low > high {
            return Err(wrong());
        }
        Ok(DrawnColumn { name, low, high, whole })
    }

    /// In the form in which the user may write it.
    pub fn notation(&self) -> String {
        let number = |x: f64| if self.whole { format!("{x}") } else { format!("{x:?}") };
        format!("{}={}..{}", self.name, number(self.low), number(self.high))
    }
}

/// A child's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LawAnswer {
    /// The inputs to verify with.
    Described(Setting),
    /// The result of the law.
    Checked(Report),
    /// The job could not be done.
    Refused(Refusal),
}

/// Does `job` and writes the answer into `folder`.
///
/// # Errors
/// The answer cannot be written.
pub fn perform(job: &LawJob, folder: &Folder) -> Result<()> {
    let answer = match &job.task {
        LawTask::Describe { options, columns, prompts } => {
            describe(job, options, columns, prompts).map(LawAnswer::Described)
        }
        LawTask::Probe { setting } => probe(job, setting.clone()).map(LawAnswer::Described),
        LawTask::Check { law, setting } => check(job, law, setting, folder).map(LawAnswer::Checked),
    };
    folder.write(Folder::ANSWER, &answer.unwrap_or_else(|error| LawAnswer::Refused(error.into())))
}

fn describe(job: &LawJob, given: &[String], columns: &[DrawnColumn], prompts: &[String]) -> Result<Setting> {
    let library = job.plugin.load()?;
    let specs = match job.kind.as_str() {
        kind::OBJECTIVE => library.objective_manifest()?.options,
        _ => library.reward_manifest()?.options,
    };
    let parsed: std::result::Result<Vec<Override>, String> = given.iter().map(|text| Override::option(text)).collect();
    let base = options::from_command_line(&specs, &parsed.map_err(Error::request)?)?;
    let refused = |error: Error| {
        Error::request(error.message().to_owned())
            .with_details(error.details().to_vec())
            .with_hint("give options with --option KEY=VALUE")
    };
    created(job, &library, &base).map_err(refused)?;
    let fixed: Vec<String> = given.iter().filter_map(|text| Some(text.split_once('=')?.0.trim().to_owned())).collect();
    let mut cases = variations(&specs, &base, &fixed);
    cases.retain(|options| *options == base || created(job, &library, options).is_ok());
    Ok(Setting {
        told: cases.iter().map(|options| told(&specs, options)).collect(),
        cases,
        columns: columns.to_vec(),
        prompts: prompts.to_vec(),
        vocabulary: None,
    })
}

fn probe(job: &LawJob, mut setting: Setting) -> Result<Setting> {
    let library = job.plugin.load()?;
    let base = setting.cases.first().cloned().unwrap_or_default();
    if job.kind == kind::OBJECTIVE {
        for name in objective_laws(&library, &setting)?.columns_asked_for() {
            let (low, high) = if name.ends_with(names::LENGTH) { (0.0, 1.0) } else { (0.5, 2.0) };
            setting.columns.push(DrawnColumn { name, low, high, whole: false });
        }
    } else if let Err(error) = reward_laws(&library, &base, &setting)?.ready()
        && error.code != plugin_api::Code::PANIC
        && setting.prompts.is_empty()
    {
        return Err(Error::request(format!("the reward scores no sample: {}", error.message))
            .with_hint("give prompts that the reward accepts with --prompt TEXT, once or several times"));
    }
    Ok(setting)
}

/// Creates an instance.
fn created(job: &LawJob, library: &Library, options: &OptionMap) -> Result<()> {
    match job.kind.as_str() {
        kind::OBJECTIVE => library.objective(options).and_then(|instance| instance.requirements().map(drop))?,
        _ => library.reward(options).map(drop)?,
    }
    Ok(())
}

fn objective_laws(library: &Library, setting: &Setting) -> Result<objective::Laws> {
    let (manifest, own) = (library.objective_manifest()?, library.clone());
    let mut generator = objective::Generator::new(0x7e105);
    if let Some(tokens) = setting.vocabulary {
        generator = generator.with_vocabulary(tokens as usize);
    }
    let segmented = |options: &OptionMap| {
        let statistics = library.objective(options)?.requirements()?.statistics;
        Ok::<bool, Error>(statistics.iter().any(|name| name == names::TOKEN_SCORE))
    };
    // A process reward model scores the segments of answers.
    if manifest.data == DataKind::PROMPT_COMPLETION && setting.cases.first().map_or(Ok(false), segmented)? {
        generator = generator.with_segments();
    }
    for column in &setting.columns {
        if let Some(list) = column.name.strip_suffix(names::LENGTH) {
            generator = generator.with_list(list, column.low..=column.high);
            continue;
        }
        let name = format!("{}{}", names::COLUMN, column.name);
        let (low, high) = (column.low, column.high);
        generator = match column.whole {
            true => generator.with_integers(&name, Scope::SEQUENCE, low as i32..=high as i32),
            false => generator.with_array(&name, Scope::SEQUENCE, low..=high),
        };
    }
    let laws = objective::Laws::new(manifest, move |options| own.objective(options)).with_generator(generator);
    Ok(setting.cases.iter().cloned().fold(laws, objective::Laws::with_options))
}

fn reward_laws(library: &Library, options: &OptionMap, setting: &Setting) -> Result<reward::Laws> {
    let (manifest, own) = (library.reward_manifest()?, library.clone());
    let laws = reward::Laws::new(manifest, move |options| own.reward(options)).with_options(options.clone());
    Ok(setting.prompts.iter().fold(laws, |laws, prompt| laws.with_prompt(prompt)))
}

fn check(job: &LawJob, law: &str, setting: &Setting, folder: &Folder) -> Result<Report> {
    let library = job.plugin.load()?;
    let at = folder.clone();
    let mut report = Report::default();
    if job.kind == kind::OBJECTIVE {
        let laws = objective_laws(&library, setting)?.only(&[law]).watched(move |case| at.reached(case));
        report = laws.verify();
        if law == "declared" {
            offered(&library, setting, &mut report);
        }
    } else {
        for (options, told) in setting.cases.iter().zip(&setting.told) {
            let (at, told) = (at.clone(), told.clone());
            let watch = move |law: &str| at.reached(&format!("{law} {told}"));
            let own = reward_laws(&library, options, setting)?.only(&[law]).watched(watch).verify();
            report.lines.extend(own.lines);
        }
    }
    let specs = specs(job, &library)?;
    for line in &mut report.lines {
        if let Ok(options) = serde_json::from_str::<OptionMap>(&line.case) {
            line.case = told(&specs, &options);
        }
    }
    Ok(report)
}

/// Adds a failed line for the first options with which the objective reads a statistic that this host does not
/// compute.
fn offered(library: &Library, setting: &Setting, report: &mut Report) {
    let missing = setting.cases.iter().zip(&setting.told).find_map(|(options, told)| {
        let requirements = library.objective(options).and_then(|instance| instance.requirements()).ok()?;
        Some((told, not_offered(&requirements)?.to_owned()))
    });
    if let Some((told, name)) = missing {
        let computed = offered_statistics().join(", ");
        report.push(
            "declared",
            told,
            Err(format!("the statistic `{name}` is not computed by this host; it computes {computed}")),
        );
    }
}

fn specs(job: &LawJob, library: &Library) -> Result<Vec<OptionSpec>> {
    Ok(match job.kind.as_str() {
        kind::OBJECTIVE => library.objective_manifest()?.options,
        _ => library.reward_manifest()?.options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a range that is read in reverse, and whole numbers that are drawn as real ones.
    #[test]
    fn a_column_is_a_name_and_a_range() {
        let column = |name: &str, low, high, whole| DrawnColumn { name: name.into(), low, high, whole };
        assert_eq!(DrawnColumn::parse("margin=0.0..2.5"), Ok(column("margin", 0.0, 2.5, false)));
        assert_eq!(DrawnColumn::parse("column.level=-1..5"), Ok(column("level", -1.0, 5.0, true)));
        assert_eq!(column("margin", 0.0, 2.5, false).notation(), "margin=0.0..2.5");
        for wrong in ["margin", "margin=1", "margin=2..1", "=0..1", "margin=a..b", "margin=0..inf"] {
            let why = DrawnColumn::parse(wrong).expect_err(wrong);
            assert!(why.contains("NAME=LOW..HIGH") && why.contains(wrong), "{why}");
        }
    }
}
