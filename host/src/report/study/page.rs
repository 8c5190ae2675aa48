//! A study in the page of a report: the table of its arms, the metric over each swept key, and its curves with seeds as bands.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::{ArmRecord, StudyRecord};
use crate::{
    html::{escaped, table},
    plot::{
        self, COLOURS, Panel,
        dots::{Dot, Dots},
    },
    report::{
        Report,
        figure::{self, Axis, Request},
        tables::Rows,
    },
    runs::study_file::RunPlan,
};

/// The most curves or series of points that a figure tells apart.
const MOST_SERIES: usize = 12;

/// The section of a study.
pub fn section(study: &StudyRecord, report: &Report) -> String {
    let mut text = format!("<section class=\"study\">\n<h2>Study: {}</h2>\n", escaped(&study.plan.name));
    text.push_str(&table(&study.table()));
    let mut lines = study.sentences();
    if let Some(halving) = &study.plan.halving {
        let steps = halving.steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "successive halving by {}: rungs of {steps} steps, the best 1/{} continue",
            halving.metric, halving.factor
        ));
    }
    let (done, all) = study.progress();
    lines.push(format!("{done} of {all} runs are complete"));
    lines.iter().for_each(|line| _ = writeln!(text, "<p>{}</p>", escaped(line)));
    for failed in &study.failed {
        _ = writeln!(text, "<p class=\"end\">failed: {}</p>", escaped(failed));
    }
    let (figures, missing) = figures(study, report);
    missing.iter().for_each(|line| _ = writeln!(text, "<p>{}</p>", escaped(line)));
    for (title, figure) in figures {
        _ = writeln!(
            text,
            "<details class=\"part\" open><summary>{}</summary>\n<div class=\"figure\">{figure}</div>\n</details>",
            escaped(&title)
        );
    }
    _ = writeln!(text, "<details class=\"part\"><summary>Runs</summary>\n{}</details>", table(&runs(study)));
    text.push_str("</section>\n");
    text
}

fn runs(study: &StudyRecord) -> Rows {
    let mut rows = vec![["run", "state", "steps", &study.metric.metric].map(str::to_owned).to_vec()];
    for run in study.arms.iter().flat_map(|arm| &arm.runs) {
        let value = run.value.map_or_else(|| "-".to_owned(), crate::report::health::short);
        rows.push(vec![run.run.clone(), run.state.to_owned(), run.steps.to_string(), value]);
    }
    rows
}

/// The figures as SVG, with their titles, and a sentence for each that would show too much to be read; one that cannot be drawn is
/// left out.
fn figures(study: &StudyRecord, report: &Report) -> (Vec<(String, String)>, Vec<String>) {
    let metric = &study.metric.metric;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for key in &study.plan.keys {
        let Some(dots) = dots(study, key) else { continue };
        let note = if dots.joined {
            ""
        } else {
            ": a point is an arm; the other keys have too many combinations to be distinguished"
        };
        found.extend(plot::dots::draw(&dots).ok().map(|svg| (format!("{metric} by {key}{note}"), svg)));
    }
    if let Some(panel) = curves(study, report) {
        match panel.lines.len() {
            arms if arms > MOST_SERIES => missing.push(format!(
                "{arms} arms have curves of {metric}: their means over seeds are drawn for at most {MOST_SERIES}; all runs are in \
                 the charts below"
            )),
            _ => found.extend(plot::draw(&[panel]).ok().map(|svg| {
                (format!("{metric} over steps: the mean over seeds, and one standard deviation below and above it"), svg)
            })),
        }
    }
    (found, missing)
}

/// The metric of the study's runs over steps.
fn curves(study: &StudyRecord, report: &Report) -> Option<Panel> {
    let names: BTreeSet<&str> = study.plan.runs().map(|run| run.name.as_str()).collect();
    let own = |folder: &std::path::Path| folder.parent() == Some(&study.folder);
    let mut groups = report.groups.clone();
    for group in &mut groups {
        group.runs.retain(|run| own(&run.run.folder) && names.contains(run.label.as_str()));
    }
    groups.retain(|group| !group.runs.is_empty());
    let only = Report { title: String::new(), groups, remarks: Vec::new(), studies: Vec::new() };
    let request = Request { metric: study.metric.metric.clone(), axis: Axis::Step, smooth: 0.0, stage: None };
    let mut panel = figure::panel(&only, &request).ok()?;
    // The curves are in the order of the arms, and named by all options that differ, derived ones too.
    let measured = |run: &RunPlan| {
        only.runs().any(|own| {
            own.label == run.name && own.run.metrics.get(&study.metric.metric).is_some_and(|own| !own.is_empty())
        })
    };
    let arms = study.plan.arms.iter().map(|arm| (&arm.name, arm.runs.iter().filter(|run| measured(run)).count()));
    let arms: Vec<_> = arms.filter(|(_, seeds)| *seeds > 0).collect();
    if arms.len() == panel.lines.len() {
        for (line, (name, seeds)) in panel.lines.iter_mut().zip(arms) {
            line.0 = if seeds > 1 { format!("{name} (mean of {seeds} seeds)") } else { name.clone() };
        }
    }
    // A single point is not a curve.
    panel.lines.iter().any(|(_, _, points)| points.len() > 1).then_some(panel)
}

/// The complete arms over the values of `key`, a series for each combination of the other keys.
fn dots(study: &StudyRecord, key: &str) -> Option<Dots> {
    let complete = || {
        study.plan.arms.iter().filter_map(|plan| {
            study.arms.iter().find(|arm| arm.name == plan.name && arm.complete && arm.values.contains_key(key))
        })
    };
    let mut values: Vec<&Value> = Vec::new();
    for arm in complete() {
        if !values.contains(&&arm.values[key]) {
            values.push(&arm.values[key]);
        }
    }
    if values.len() < 2 {
        return None;
    }
    if values.iter().all(|value| value.is_number()) {
        values.sort_by(|a, b| a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)));
    }
    let keys: Vec<&str> = study.plan.keys.iter().map(String::as_str).collect();
    let rest = |arm: &ArmRecord| {
        let others = arm.values.iter().filter(|(own, _)| *own != key);
        let text = |(own, value): (&String, &Value)| {
            format!("{}={}", crate::config::sweep::short_key(own, &keys), shown(value))
        };
        others.map(text).collect::<Vec<_>>().join(", ")
    };
    let mut names: Vec<String> = Vec::new();
    for arm in complete() {
        let name = rest(arm);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let told_apart = names.len() <= MOST_SERIES.min(COLOURS.len());
    let series = if told_apart { names.clone() } else { vec![String::new()] };
    let dot = |arm: &ArmRecord| {
        let estimate = arm.estimate?;
        let (low, high) = estimate.interval();
        let at = values.iter().position(|value| **value == arm.values[key])?;
        let name = rest(arm);
        let series = if told_apart { names.iter().position(|other| *other == name)? } else { 0 };
        Some(Dot { series, at, value: estimate.mean, low, high })
    };
    let dots = complete().filter_map(dot).collect();
    Some(Dots {
        title: study.metric.metric.clone(),
        x: key.to_owned(),
        labels: values.iter().map(|value| shown(value)).collect(),
        series,
        joined: told_apart,
        dots,
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
