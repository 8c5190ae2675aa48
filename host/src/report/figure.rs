//! One metric of several runs as a figure: a curve for each run, and a band where runs differ only in their seed.

use std::collections::BTreeMap;

use super::{
    Labelled, Report,
    record::{EVAL, Points, RunRecord},
    tables::options,
};
use crate::{
    error::{Error, Result},
    keys::mistake::suggestion,
    plot::{Axis as PlotAxis, Band, COLOURS, Panel},
};

/// What the horizontal axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Optimizer steps.
    Step,
    /// Tokens trained on.
    Tokens,
    /// Seconds of steps and evaluations.
    Seconds,
    /// Estimated floating-point operations of training.
    Flops,
}

impl Axis {
    /// The axis's title.
    pub fn title(self) -> &'static str {
        match self {
            Axis::Step => "step",
            Axis::Tokens => "tokens",
            Axis::Seconds => "seconds",
            Axis::Flops => "FLOPs (estimated)",
        }
    }

    /// Where a step of a run lies; `None` if the run did not record it.
    fn at(self, run: &RunRecord, step: f64) -> Option<f64> {
        if self == Axis::Step {
            return Some(step);
        }
        let after = run.progress.partition_point(|progress| progress.step <= step);
        let progress = match after.checked_sub(1) {
            Some(at) => run.progress.get(at)?,
            // Before the first step, nothing was spent on training.
            None => return Some(0.0),
        };
        let value = match self {
            Axis::Seconds => progress.seconds,
            Axis::Flops if run.about.flops_per_token == 0.0 => f64::NAN,
            Axis::Flops => progress.tokens * run.about.flops_per_token,
            _ => progress.tokens,
        };
        value.is_finite().then_some(value)
    }
}

/// What to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The metric's name in metrics.jsonl.
    pub metric: String,
    /// The horizontal axis.
    pub axis: Axis,
    /// Weight of the past in an exponential moving average, below 1.
    pub smooth: f64,
    /// Only this stage of pipelines.
    pub stage: Option<String>,
}

/// Runs that differ only in their seed.
struct Seeds<'a> {
    name: String,
    runs: Vec<&'a RunRecord>,
}

/// The figure as a panel.
///
/// # Errors
/// A request error if no run has the metric, or no run recorded what the axis counts.
pub fn panel(report: &Report, request: &Request) -> Result<Panel> {
    let Request { metric, axis, smooth, stage } = request;
    if let Some(stage) = stage
        && !report.groups.iter().any(|group| group.title == *stage)
    {
        let stages = report.groups.iter().map(|group| group.title.as_str()).filter(|title| !title.is_empty());
        let message = format!("--stage: there is no stage {stage:?}; {}", suggestion(stage, stages));
        return Err(Error::request(message));
    }
    let groups = report.groups.iter().filter(|group| stage.as_ref().is_none_or(|stage| group.title == *stage));
    let mut found: Vec<(&str, &Labelled)> = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    for group in groups {
        for run in &group.runs {
            known.extend(run.run.metrics.keys().chain(run.run.timing.keys()).map(String::as_str));
            if points(&run.run, metric).is_some() {
                found.push((&group.title, run));
            }
        }
    }
    if found.is_empty() {
        known.sort_unstable();
        known.dedup();
        let message = format!("--metric: no run has {metric:?}; {}", suggestion(metric, known.iter().copied()));
        return Err(Error::request(message).with_hint(format!("metrics: {}", known.join(", "))));
    }
    let sets = by_seed(&found);
    let (mut lines, mut bands) = (Vec::new(), Vec::new());
    for (index, set) in sets.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let curves: Vec<Curve> = set.runs.iter().map(|run| curve(run, metric, *axis, *smooth)).collect();
        if let Some(at) = curves.iter().position(Vec::is_empty) {
            let name = &set.runs[at].name;
            let message = format!("--axis: {name} recorded no value for {}", axis.title());
            return Err(Error::request(message).with_hint("use --axis step"));
        }
        if let [only] = &curves[..] {
            let line = only.iter().map(|(_, x, value)| (*x, *value)).collect();
            lines.push((set.name.clone(), colour, line));
            continue;
        }
        let (mean, band) = over_seeds(&curves);
        lines.push((format!("{} (mean of {} seeds)", set.name, curves.len()), colour, mean));
        bands.push(Band { colour, points: band });
    }
    Ok(Panel { title: metric.clone(), axis: PlotAxis::Linear, x: axis.title().into(), lines, bands, height: 1 })
}

fn points<'a>(run: &'a RunRecord, metric: &str) -> Option<&'a Points> {
    run.metrics.get(metric).or_else(|| run.timing.get(metric)).filter(|points| !points.is_empty())
}

/// Groups runs whose options are the same but for the seed, and names each group by the options that distinguish it.
fn by_seed<'a>(found: &[(&'a str, &'a Labelled)]) -> Vec<Seeds<'a>> {
    let mut sets: Vec<(BTreeMap<String, String>, &str, Vec<&Labelled>)> = Vec::new();
    for (stage, labelled) in found {
        let mut own = options(&labelled.run);
        own.retain(|key, _| !["seed", "runs_dir"].contains(&key.rsplit('.').next().unwrap_or(key)));
        // Stages of several runs of one pipeline read the models of their own pipeline.
        if let Some((pipeline, _)) = labelled.run.name.split_once('/') {
            for value in own.iter_mut().filter(|(key, _)| !key.contains("prompt")).map(|(_, value)| value) {
                let parts = value.split('/').map(|part| if part == pipeline { "*" } else { part });
                *value = parts.collect::<Vec<_>>().join("/");
            }
        }
        let seed = |run: &RunRecord| run.experiment.get("seed").map(ToString::to_string);
        // Runs whose options are unknown, and a second one of the same seed, are not seeds of one experiment.
        let same = |(other, title, runs): &&mut (BTreeMap<String, String>, &str, Vec<&Labelled>)| {
            let new = runs.iter().all(|earlier| seed(&earlier.run) != seed(&labelled.run));
            !own.is_empty() && *other == own && title == stage && new
        };
        match sets.iter_mut().find(same) {
            Some((_, _, runs)) => runs.push(labelled),
            None => sets.push((own, stage, vec![labelled])),
        }
    }
    let differs = |key: &str| sets.iter().any(|(own, _, _)| own.get(key) != sets[0].0.get(key));
    let several_stages = sets.iter().any(|(_, stage, _)| *stage != sets[0].1);
    let name = |(own, stage, runs): &(BTreeMap<String, String>, &str, Vec<&Labelled>)| {
        let different = own.iter().filter(|(key, _)| differs(key));
        let text = |(key, value): (&String, &String)| format!("{} {value}", key.rsplit('.').next().unwrap_or(key));
        let parts: Vec<String> = different.map(text).collect();
        // The label of one of several seeds would name that seed alone.
        let of_runs = || match &runs[..] {
            [one] => one.label.clone(),
            _ if sets.len() == 1 => "all runs".to_owned(),
            [first, rest @ ..] => format!("{} and {} more", first.label, rest.len()),
            [] => String::new(),
        };
        match (several_stages, parts.is_empty() || parts.len() > 3) {
            (true, true) if !stage.is_empty() => (*stage).to_owned(),
            (_, true) => of_runs(),
            (true, false) if !stage.is_empty() => format!("{stage}: {}", parts.join(", ")),
            (_, false) => parts.join(", "),
        }
    };
    let named: Vec<String> = sets.iter().map(name).collect();
    let runs = |runs: Vec<&'a Labelled>| runs.into_iter().map(|labelled| &labelled.run).collect();
    sets.into_iter().zip(named).map(|((_, _, own), name)| Seeds { name, runs: runs(own) }).collect()
}

/// A curve's points: step, place on the axis, value.
type Curve = Vec<(f64, f64, f64)>;

/// The smoothed values over the axis; values that are not finite are left out.
fn curve(run: &RunRecord, metric: &str, axis: Axis, smooth: f64) -> Curve {
    let (mut sum, mut weight) = (0.0, 0.0);
    let finite = points(run, metric).into_iter().flatten().filter(|(_, value)| value.is_finite());
    let averaged = finite.map(|(step, value)| {
        sum = smooth * sum + (1.0 - smooth) * value;
        weight = smooth * weight + (1.0 - smooth);
        // An evaluation is a measurement of its own.
        (*step, if metric.starts_with(EVAL) { *value } else { sum / weight })
    });
    averaged.filter_map(|(step, value)| Some((step, axis.at(run, step)?, value))).collect()
}

/// The mean over seeds at each step that all of them have, and one standard deviation (of the sample) below and above it. A step's
/// place is the mean of its places.
fn over_seeds(curves: &[Curve]) -> (Points, Vec<(f64, f64, f64)>) {
    let mut steps: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for (step, x, value) in curves.iter().flatten() {
        steps.entry(*step as u64).or_default().push((*x, *value));
    }
    let n = curves.len() as f64;
    let (mut mean, mut band) = (Vec::new(), Vec::new());
    for own in steps.into_values().filter(|own| own.len() == curves.len()) {
        let x = own.iter().map(|point| point.0).sum::<f64>() / n;
        let middle = own.iter().map(|point| point.1).sum::<f64>() / n;
        let deviation = (own.iter().map(|point| (point.1 - middle).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt();
        mean.push((x, middle));
        band.push((x, middle - deviation, middle + deviation));
    }
    (mean, band)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Group, record::Progress, record::tests::empty_run};

    fn run(label: &str, seed: u64, beta: f64, loss: &[f64]) -> Labelled {
        let mut run = empty_run();
        run.name = label.into();
        run.experiment = format!("seed = {seed}\nname = \"{label}\"\n[objective]\nbeta = {beta}").parse().unwrap();
        let steps = || (1..).map(f64::from);
        run.metrics.insert("loss".into(), steps().zip(loss.iter().copied()).collect());
        run.progress =
            steps().take(loss.len()).map(|step| Progress { step, tokens: 10.0 * step, seconds: f64::NAN }).collect();
        Labelled { label: label.into(), run }
    }

    fn report(runs: Vec<Labelled>) -> Report {
        Report {
            title: String::new(),
            groups: vec![Group { title: String::new(), runs }],
            remarks: Vec::new(),
            studies: Vec::new(),
        }
    }

    fn request(metric: &str, axis: Axis) -> Request {
        Request { metric: metric.into(), axis, smooth: 0.0, stage: None }
    }

    /// Catches seeds that are drawn apart, other options that are averaged, and a deviation of the population instead of the sample.
    #[test]
    fn runs_that_differ_in_their_seed_become_a_band() {
        let runs =
            vec![run("a", 1, 0.1, &[3.0, 2.0]), run("b", 2, 0.1, &[5.0, 4.0, 1.0]), run("c", 1, 0.5, &[1.0, 0.5])];
        let panel = panel(&report(runs), &request("loss", Axis::Tokens)).unwrap();
        let names: Vec<&str> = panel.lines.iter().map(|line| line.0.as_str()).collect();
        assert_eq!(names, ["beta 0.1 (mean of 2 seeds)", "beta 0.5"]);
        assert_eq!(panel.lines[0].2, [(10.0, 4.0), (20.0, 3.0)]);
        let root = 2.0_f64.sqrt();
        assert_eq!(panel.bands.len(), 1);
        assert_eq!(panel.bands[0].points, [(10.0, 4.0 - root, 4.0 + root), (20.0, 3.0 - root, 3.0 + root)]);
        assert_eq!(panel.x, "tokens");
    }

    /// Catches a group of seeds that is named by the first of them.
    #[test]
    fn runs_that_differ_only_in_their_seed_are_named_together() {
        let seeds = || vec![run("a", 1, 0.1, &[3.0]), run("b", 2, 0.1, &[5.0])];
        let names = |runs: Vec<Labelled>| {
            let panel = panel(&report(runs), &request("loss", Axis::Step)).unwrap();
            panel.lines.into_iter().map(|line| line.0).collect::<Vec<String>>()
        };
        assert_eq!(names(seeds()), ["all runs (mean of 2 seeds)"]);
        assert_eq!(names(vec![run("a", 1, 0.1, &[3.0])]), ["a"]);
        let again = run("again", 2, 0.1, &[5.0]);
        assert_eq!(names([seeds(), vec![again]].concat()), ["a and 1 more (mean of 2 seeds)", "again"]);
    }

    /// Catches a seed that is counted twice, runs from different models that are averaged, and values of different steps that are
    /// averaged after one that is not a number.
    #[test]
    fn only_seeds_of_one_experiment_are_averaged_step_by_step() {
        let nan = f64::NAN;
        let with = |mut labelled: Labelled, from: &str| {
            labelled.run.experiment.insert("model".into(), toml::Value::String(from.into()));
            labelled
        };
        let runs = vec![
            with(run("a", 1, 0.1, &[3.0, nan, 1.0]), "small"),
            with(run("b", 2, 0.1, &[5.0, 4.0, 3.0]), "small"),
            with(run("b again", 2, 0.1, &[5.0, 4.0, 3.0]), "small"),
            with(run("c", 3, 0.1, &[9.0, 9.0, 9.0]), "large"),
        ];
        let panel = panel(&report(runs), &request("loss", Axis::Step)).unwrap();
        assert_eq!((panel.lines.len(), panel.bands.len()), (3, 1));
        // Only the second run of a seed has the options of the others.
        assert!(panel.lines[0].0.starts_with("model ") && panel.lines[2].0 == "model large", "{:?}", panel.lines);
        assert_eq!(panel.lines[0].2, [(1.0, 4.0), (3.0, 2.0)]);
    }

    /// Catches a misspelt metric that is drawn as an empty figure, and an axis that the runs did not record.
    #[test]
    fn what_no_run_has_is_refused_with_what_there_is() {
        let report = report(vec![run("a", 1, 0.1, &[3.0])]);
        let error = |request| panel(&report, &request).unwrap_err().report();
        assert!(error(request("los", Axis::Step)).contains("loss"));
        assert!(error(request("loss", Axis::Seconds)).contains("--axis step"));
        assert!(error(Request { stage: Some("sft".into()), ..request("loss", Axis::Step) }).contains("sft"));
    }

    /// Catches an average that begins at 0.
    #[test]
    fn smoothing_is_unbiased_at_its_beginning() {
        let labelled = run("a", 1, 0.1, &[4.0, 4.0, 4.0]);
        let values: Vec<f64> = curve(&labelled.run, "loss", Axis::Step, 0.9).into_iter().map(|point| point.2).collect();
        assert!(values.iter().all(|value| (value - 4.0).abs() < 1e-12), "{values:?}");
    }
}
