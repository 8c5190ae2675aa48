//! The result of a trial: a table of both objectives, and their curves.

use crate::decimals::fixed;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use plugin_api::manifest::DataKind;
use serde::Serialize;
use serde_json::Value;

use super::experiment::{GOLD, Recipe, Stages};
use super::folder::{EXPERIMENT, PICTURE};
use crate::error::{Error, Result};
use crate::pipeline::report::PipelineSummary;
use crate::plot::{Axis, COLOURS, Line, Panel};

/// The result of a trial.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The kind of data.
    pub data: String,
    /// The objective whose loss is measured in both runs, if there is one.
    pub measure: Option<String>,
    /// What both runs report and is compared, besides their own losses and the true reward.
    pub compared: Option<String>,
    /// The known objective, then the tried one.
    pub runs: Vec<Tried>,
    /// The experiment that was run.
    pub experiment: PathBuf,
    /// The picture.
    pub picture: PathBuf,
}

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// The objective.
    pub objective: String,
    /// Steps.
    pub steps: u64,
    /// Seconds of its steps and evaluations.
    pub seconds: f64,
    /// Its own held-out loss before and after.
    pub loss: Ends,
    /// What both runs report, such as a held-out loss in nats per token, before and after.
    pub measured: Ends,
    /// The true reward of its answers to held-out prompts before and after.
    pub gold: Ends,
    /// Its receipt: the hashes of everything that the result depends on.
    pub receipt: PathBuf,
    /// What both runs report, by step.
    pub measured_curve: Vec<(f64, f64)>,
    /// The true reward by step.
    pub gold_curve: Vec<(f64, f64)>,
}

/// A figure before and after training; `None` where it was not measured.
pub type Ends = (Option<f64>, Option<f64>);

impl Trial {
    /// Reads the logs of a trial in the folder `out`.
    ///
    /// # Errors
    /// A log that cannot be read, or a stage that has not ended.
    pub fn read(
        data: &DataKind,
        recipe: &Recipe,
        stages: &Stages,
        summary: &PipelineSummary,
        out: &Path,
    ) -> Result<Trial> {
        let logs = |run: &String| Metrics::read(&out.join(run));
        let logs = [logs(&stages.runs[0])?, logs(&stages.runs[1])?];
        let (compared, names) = compared(recipe, stages, &logs).unzip();
        let mut runs = Vec::new();
        for (index, (run, metrics)) in stages.runs.iter().zip(&logs).enumerate() {
            let figures = summary.stages.iter().find(|stage| stage.stage == *run && stage.ended);
            let figures = figures.ok_or_else(|| Error::run(format!("the stage \"{run}\" has not ended")))?;
            let measured = names.as_ref().map_or(Vec::new(), |names: &[String; 2]| metrics.curve(&names[index]));
            let reward = format!("eval/reward/{GOLD}");
            let gold_curve = metrics.curve(&reward);
            let gold = match stages.gold.as_ref().map(|gold| out.join(&gold[index])) {
                Some(folder) => (None, Metrics::read(&folder)?.curve(&reward).first().map(|point| point.1)),
                None => ends(&gold_curve),
            };
            runs.push(Tried {
                objective: run.clone(),
                steps: figures.steps,
                seconds: figures.seconds,
                loss: (figures.loss_before, figures.loss_after),
                measured: ends(&measured),
                gold,
                receipt: figures.folder.join("receipt.json"),
                measured_curve: measured,
                gold_curve,
            });
        }
        Ok(Trial {
            data: data.to_string(),
            measure: recipe.measure.filter(|_| stages.measures).map(str::to_owned),
            compared,
            runs,
            experiment: out.join(EXPERIMENT),
            picture: out.join(PICTURE),
        })
    }

    /// The curves of both runs.
    pub fn panels(&self, id: &str, against: &str) -> Vec<Panel> {
        let lines = |curve: fn(&Tried) -> &[(f64, f64)]| -> Vec<Line> {
            let runs = self.runs.iter().zip(&COLOURS);
            let lines = runs.map(|(run, colour)| (run.objective.clone(), *colour, curve(run).to_vec()));
            lines.filter(|(_, _, points)| !points.is_empty()).collect()
        };
        let compared = self.compared.as_deref().unwrap_or_default();
        let panel =
            |title, lines| Panel { title, axis: Axis::Linear, x: "step".into(), lines, bands: Vec::new(), height: 1 };
        vec![
            panel(format!("{id} beside {against}: {compared}"), lines(|run| &run.measured_curve)),
            panel(
                format!("{id} beside {against}: true reward of answers to held-out prompts"),
                lines(|run| &run.gold_curve),
            ),
        ]
    }
}

/// The losses that the table has anyway.
const OWN_LOSS: &str = "held-out loss, each its own";
/// The title of the share of right answers.
const ACCURACY: &str = "held-out accuracy";

/// What is compared in both runs, and the metric's name in the log of each: the loss of an objective that is measured in
/// both, or a metric that both objectives report of their own. `None` for models whose answers the true reward compares.
fn compared(recipe: &Recipe, stages: &Stages, logs: &[Metrics; 2]) -> Option<(String, [String; 2])> {
    if let Some(measure) = recipe.measure.filter(|_| stages.measures) {
        let name = |run: &String| if measure == run { NLL.to_owned() } else { format!("eval/{measure}/nll") };
        let label = format!("held-out nll of {measure}, in nats per token");
        return Some((label, [name(&stages.runs[0]), name(&stages.runs[1])]));
    }
    if recipe.measure.is_none() && stages.writes {
        return None;
    }
    let own = [(NLL, "held-out nll, each of its own sequences"), ("eval/accuracy", ACCURACY), ("eval/loss", OWN_LOSS)];
    let both = own.into_iter().find(|(name, _)| logs.iter().all(|log| !log.curve(name).is_empty()));
    both.map(|(name, label)| (label.to_owned(), [name.to_owned(), name.to_owned()]))
}

/// The held-out negative log-likelihood of the only objective.
const NLL: &str = "eval/nll";

fn ends(curve: &[(f64, f64)]) -> Ends {
    let at = |step: Option<&(f64, f64)>| step.map(|point| point.1);
    match curve {
        [.., last] if curve.len() > 1 => (at(curve.first()), Some(last.1)),
        _ => (at(curve.first()), None),
    }
}

/// The evaluations in a run's log.
struct Metrics(Vec<Value>);

impl Metrics {
    fn read(folder: &Path) -> Result<Metrics> {
        let path = folder.join("metrics.jsonl");
        let text = fs::read_to_string(&path)
            .map_err(|cause| Error::run(format!("cannot read {}", path.display())).with_cause(cause))?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(Metrics(lines.filter(|line| line["kind"] == "eval").collect()))
    }

    /// A metric by step.
    fn curve(&self, name: &str) -> Vec<(f64, f64)> {
        let point = |line: &Value| Some((line["step"].as_f64()?, line.get(name)?.as_f64()?));
        self.0.iter().filter_map(point).filter(|point| point.1.is_finite()).collect()
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| fixed(value, 3));
        let arrow = |ends: Ends| format!("{} -> {}", number(ends.0), number(ends.1));
        let measured = self.compared.as_ref().filter(|compared| *compared != OWN_LOSS);
        let measured = measured.map(|compared| compared.replace(", in nats per token", ""));
        let has_gold = self.runs.iter().any(|run| run.gold.0.or(run.gold.1).is_some());
        let mut rows = vec![vec!["objective".to_owned(), "steps".into(), "seconds".into(), "own held-out loss".into()]];
        rows[0].extend(measured.clone());
        rows[0].extend(has_gold.then(|| "true reward".into()));
        for run in &self.runs {
            let mut row =
                vec![run.objective.clone(), run.steps.to_string(), format!("{:.1}", run.seconds), arrow(run.loss)];
            row.extend(measured.as_ref().map(|_| arrow(run.measured)));
            row.extend(has_gold.then(|| arrow(run.gold)));
            rows.push(row);
        }
        for row in &rows {
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:w$}", w = width(column)));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for run in &self.runs {
            writeln!(f, "receipt     {}", run.receipt.display())?;
        }
        writeln!(f, "experiment  {}", self.experiment.display())?;
        write!(f, "plot        {}", self.picture.display())
    }
}
