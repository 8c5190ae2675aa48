//! Which curves a report shows, and which of them share a chart: a table of rules over the names of metrics.

use std::collections::BTreeMap;

use super::{
    Labelled,
    record::{EVAL, Points},
};
use crate::train::run::about::About;

/// Points that are kept of a curve: two for each of so many ranges of steps, the smallest and the largest value.
const RANGES: usize = 1000;

/// Charts below one heading.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// The heading.
    pub title: String,
    /// Its charts.
    pub charts: Vec<Chart>,
}

/// Curves over the same axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Its title: a metric's name, or what the names of its metrics have in common.
    pub title: String,
    /// What the metrics are, in a sentence each.
    pub meaning: Vec<String>,
    /// The range of values in a healthy run, if all metrics have the same.
    pub healthy: Option<(f64, f64)>,
    /// Its curves.
    pub lines: Vec<Line>,
}

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Index of its run.
    pub run: usize,
    /// What distinguishes it from the run's other curves in the chart; empty if there is none.
    pub label: String,
    /// Whether it was measured on held-out data.
    pub held_out: bool,
    /// Its points.
    pub points: Points,
    /// Where points were left out: the mean of the finite values of each range of steps, at its last step, and how many they are.
    /// A moving average over the points that were kept would be one over extremes.
    pub means: Vec<(f64, f64, usize)>,
}

/// A place in the report, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Loss,
    Objective,
    Answers,
    Optimizer,
    Batches,
    Speed,
    Other,
}

/// Last parts of names whose curves belong together.
const FAMILIES: [&str; 6] = ["chosen", "rejected", "margin", "min", "mean", "max"];

/// Meanings of metrics that the host itself computes.
const OWN: [(&str, &str); 22] = [
    ("loss", "What is minimised: the sum of the objectives' terms, each divided by its normaliser"),
    ("nll", "Negative log-probability of a supervised token, in nats, whatever the objective"),
    ("token_accuracy", "Share of supervised tokens that are the most probable one"),
    ("lr", "Learning rate"),
    ("grad_norm", "Norm of the gradient before clipping"),
    ("critic/grad_norm", "Norm of the value model's gradient before clipping"),
    ("tokens", "Positions computed in a step"),
    ("context", "Longest sequence in tokens"),
    ("exact_match", "Share of greedy answers to held-out prompts that equal the expected one"),
    ("reward", "Weighted sum of the rewards of an answer"),
    ("answers/length", "Tokens of a sampled answer to a held-out prompt, with the end-of-text token"),
    ("answers/ended", "Share of these answers that ended by themselves"),
    ("answers/kl", "KL of these answers to the reference, in nats per answer"),
    ("drawn", "Answers that a rollout drew"),
    ("kept", "Answers that the objectives kept"),
    ("tokens_per_s", "Tokens trained on per second of a step"),
    ("memory_gib", "The backend's buffers, in GiB"),
    ("process_peak_gib", "The most that the process held, in GiB"),
    ("completion_logp", "Log-probability of a completion, summed over its tokens, in nats"),
    ("pass@1", "Probability that one sampled answer is the expected one"),
    ("reward/model", "Score of the reward model"),
    ("perplexity", "Exponential of the loss per token"),
];

/// The panels for some runs that are shown over one another.
pub fn panels(runs: &[Labelled]) -> Vec<Panel> {
    let mut charts: BTreeMap<(Place, usize, String), Chart> = BTreeMap::new();
    for (index, Labelled { run, .. }) in runs.iter().enumerate() {
        let metrics = run.metrics.iter().map(|(name, points)| (name.as_str(), points));
        let timing = run.timing.iter().map(|(name, points)| (name.as_str(), points));
        for (name, points) in metrics.chain(timing) {
            let (name, held_out) = name.strip_prefix(EVAL).map_or((name, false), |name| (name, true));
            if held_out && name == "tokens" || points.is_empty() {
                continue;
            }
            // What another run declares is true for a run of an earlier version, which declares nothing.
            let abouts = || std::iter::once(&run.about).chain(runs.iter().map(|own| &own.run.about));
            let spec = abouts().find_map(|about| about.metrics.iter().find(|spec| spec.name == name));
            let term = abouts().find_map(|about| about.terms.iter().find(|spec| spec.name == name));
            let place = place(name, spec.is_some(), term.is_some());
            let (title, label) = chart_of(name);
            // Objectives list their metrics in an order that means something.
            let listed = |about: &About| about.metrics.iter().position(|spec| chart_of(&spec.name).0 == title);
            let rank = match abouts().find_map(listed) {
                Some(at) if place == Place::Objective => at,
                _ => OWN.iter().position(|(own, _)| *own == title).unwrap_or(OWN.len()),
            };
            let found =
                charts.iter().find(|((p, _, t), _)| (*p, t.as_str()) == (place, title)).map(|(key, _)| key.clone());
            let key = found.unwrap_or((place, rank, title.to_owned()));
            let chart = charts.entry(key).or_insert_with(|| Chart {
                title: title.to_owned(),
                meaning: Vec::new(),
                healthy: spec.and_then(|spec| spec.healthy),
                lines: Vec::new(),
            });
            if spec.and_then(|spec| spec.healthy) != chart.healthy {
                chart.healthy = None;
            }
            let meaning = spec.map(|spec| spec.meaning.as_str()).or_else(|| term.map(|term| term.meaning.as_str()));
            let meaning = meaning.or_else(|| OWN.iter().find(|(own, _)| *own == name).map(|(_, meaning)| *meaning));
            if let Some(meaning) = meaning {
                let meaning = if label.is_empty() { meaning.to_owned() } else { format!("{label}: {meaning}") };
                if !chart.meaning.contains(&meaning) {
                    chart.meaning.push(meaning);
                }
            }
            let (points, means) = (thinned(points), means(points));
            chart.lines.push(Line { run: index, label: label.to_owned(), held_out, points, means });
        }
    }
    let mut panels: Vec<Panel> = Vec::new();
    for ((place, _, _), mut chart) in charts {
        chart.lines.sort_by(|a, b| (a.run, a.held_out, &a.label).cmp(&(b.run, b.held_out, &b.label)));
        let title = heading(place, runs);
        match panels.last_mut().filter(|panel| panel.title == title) {
            Some(panel) => panel.charts.push(chart),
            None => panels.push(Panel { title, charts: vec![chart] }),
        }
    }
    panels
}

fn place(name: &str, declared: bool, is_term: bool) -> Place {
    let answers = ["reward", "answers", "pass@"];
    match name {
        "loss" | "nll" | "token_accuracy" | "perplexity" => Place::Loss,
        "tokens_per_s" | "memory_gib" | "process_peak_gib" => Place::Speed,
        "tokens" | "context" => Place::Batches,
        _ if is_term => Place::Loss,
        _ if declared => Place::Objective,
        "lr" | "grad_norm" | "critic/grad_norm" => Place::Optimizer,
        "exact_match" | "drawn" | "kept" => Place::Answers,
        _ if answers.iter().any(|start| name.starts_with(start)) => Place::Answers,
        _ => Place::Other,
    }
}

fn heading(place: Place, runs: &[Labelled]) -> String {
    match place {
        Place::Loss => "Loss".to_owned(),
        Place::Objective => {
            let mut ids: Vec<String> = runs.iter().flat_map(|labelled| labelled.run.objectives()).collect();
            ids.sort();
            ids.dedup();
            format!("Objective: {}", ids.join(", "))
        }
        Place::Answers => "Rewards and answers".to_owned(),
        Place::Optimizer => "Optimizer".to_owned(),
        Place::Batches => "Batches".to_owned(),
        Place::Speed => "Speed and memory".to_owned(),
        Place::Other => "Other metrics".to_owned(),
    }
}

/// The title of the chart in which a metric is drawn, and the label of its curve there.
fn chart_of(name: &str) -> (&str, &str) {
    match name.rsplit_once('/') {
        Some((stem, last)) if FAMILIES.contains(&last) => (stem, last),
        // The sources of rewards, such as a model and a true reward; what a source reports in detail has a chart of its own.
        Some(("reward", source)) => ("reward", source),
        _ if name == "reward" => ("reward", "sum"),
        _ => (name, ""),
    }
}

/// At most two points for each of [`RANGES`] ranges of steps: the smallest and the largest value, in their order. The first and the
/// last point stay, and so does a gap.
fn thinned(points: &Points) -> Points {
    if points.len() <= 2 * RANGES {
        return points.clone();
    }
    let mut kept = Vec::with_capacity(2 * RANGES + 2);
    let size = points.len().div_ceil(RANGES);
    for range in points.chunks(size) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let finite = || range.iter().filter(|(_, value)| value.is_finite());
        let ends = [finite().min_by(by_value), finite().max_by(by_value)];
        let gap = range.iter().find(|(_, value)| !value.is_finite());
        let mut own: Vec<(f64, f64)> = ends.into_iter().flatten().chain(gap).copied().collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        own.dedup_by_key(|(step, _)| *step);
        kept.extend(own);
    }
    for (end, at) in [(points.first(), 0), (points.last(), kept.len())] {
        if let Some(end) = end.filter(|end| !kept.iter().any(|(step, _)| *step == end.0)) {
            kept.insert(at.min(kept.len()), *end);
        }
    }
    kept.sort_by(|a, b| a.0.total_cmp(&b.0));
    kept
}

/// See [`Line::means`]; empty if every point is kept.
fn means(points: &Points) -> Vec<(f64, f64, usize)> {
    if points.len() <= 2 * RANGES {
        return Vec::new();
    }
    let mean = |range: &[(f64, f64)]| {
        let finite = || range.iter().map(|(_, value)| *value).filter(|value| value.is_finite());
        let count = finite().count();
        (range[range.len() - 1].0, if count > 0 { finite().sum::<f64>() / count as f64 } else { f64::NAN }, count)
    };
    points.chunks(points.len().div_ceil(RANGES)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::record::{RunRecord, tests::empty_run};
    use plugin_api::manifest::{MetricSpec, Reduction};

    fn run(names: &[&str], declared: &[(&str, Option<(f64, f64)>)]) -> RunRecord {
        let mut run = empty_run();
        run.metrics = names.iter().map(|name| ((*name).to_owned(), vec![(1.0, 0.5)])).collect();
        let spec = |(name, healthy): &(&str, Option<(f64, f64)>)| MetricSpec {
            healthy: *healthy,
            ..MetricSpec::new(name, Reduction::MEAN, "what it is")
        };
        run.about.metrics = declared.iter().map(spec).collect();
        run
    }

    fn shown(runs: Vec<RunRecord>) -> Vec<(String, Vec<(String, usize)>)> {
        let runs: Vec<Labelled> = runs.into_iter().map(|run| Labelled { label: String::new(), run }).collect();
        let charts = |panel: Panel| panel.charts.into_iter().map(|c| (c.title, c.lines.len())).collect();
        panels(&runs).into_iter().map(|panel| (panel.title.clone(), charts(panel))).collect()
    }

    /// Catches a metric that is lost, a held-out curve in a chart of its own, and pairs that are drawn apart.
    #[test]
    fn curves_that_are_compared_share_a_chart() {
        let names = [
            "loss",
            "eval/loss",
            "rewards/chosen",
            "rewards/rejected",
            "rewards/margin",
            "eval/rewards/chosen",
            "reward/model",
            "reward/world",
            "reward/world/right",
            "grad_norm",
            "tokens",
            "eval/tokens",
            "mine",
            "nll",
        ];
        let declared = [("rewards/chosen", None), ("rewards/rejected", None), ("rewards/margin", None)];
        let chart = |title: &str, lines| (title.to_owned(), lines);
        let expected = vec![
            ("Loss".to_owned(), vec![chart("loss", 2), chart("nll", 1)]),
            ("Objective: ".to_owned(), vec![chart("rewards", 4)]),
            ("Rewards and answers".to_owned(), vec![chart("reward", 2), chart("reward/world/right", 1)]),
            ("Optimizer".to_owned(), vec![chart("grad_norm", 1)]),
            ("Batches".to_owned(), vec![chart("tokens", 1)]),
            ("Other metrics".to_owned(), vec![chart("mine", 1)]),
        ];
        assert_eq!(shown(vec![run(&names, &declared)]), expected);
    }

    /// Catches runs that are drawn in charts of their own, and a range that only one of two curves has.
    #[test]
    fn runs_are_drawn_over_one_another() {
        let [first, second] = [(0.0, 1.0), (0.0, 2.0)].map(|range| run(&["loss", "ratio"], &[("ratio", Some(range))]));
        let runs = |second: &RunRecord| {
            [&first, second].map(|run| Labelled { label: String::new(), run: run.clone() }).to_vec()
        };
        let healthy = |runs: &[Labelled]| panels(runs)[1].charts[0].healthy;
        assert_eq!(healthy(&runs(&first)), Some((0.0, 1.0)));
        assert_eq!(healthy(&runs(&second)), None);
        assert_eq!(panels(&runs(&second))[0].charts[0].lines.len(), 2);
    }

    /// Catches a thinning that drops a spike, an end or a gap, or that keeps everything.
    #[test]
    fn a_thinned_curve_keeps_its_extremes() {
        let mut points: Points = (0..100_000).map(|step| (f64::from(step), (f64::from(step) * 0.01).sin())).collect();
        points[54_321].1 = 9.0;
        points[77_777].1 = -9.0;
        points[12_345].1 = f64::NAN;
        let kept = thinned(&points);
        assert!(kept.len() <= 3 * RANGES + 2, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, each step once");
        for at in [0, 54_321, 77_777, 99_999] {
            assert!(kept.contains(&points[at]), "{at}");
        }
        assert!(kept.iter().any(|(step, value)| *step == 12_345.0 && value.is_nan()));
        assert_eq!(thinned(&points[..2000].to_vec()).len(), 2000);
        assert!(means(&points[..2000].to_vec()).is_empty());
    }

    /// Catches a mean over extremes only, one that a NaN destroys, and steps that count in two ranges.
    #[test]
    fn means_are_over_all_steps_of_a_range() {
        let mut points: Points = (0..100_000).map(|step| (f64::from(step), f64::from(step % 10))).collect();
        points[150].1 = f64::NAN;
        let means = means(&points);
        assert_eq!((means.len(), means[0], means[999].0), (RANGES, (99.0, 4.5, 100), 99_999.0));
        assert_eq!((means[1].2, means[1].1 > 4.5), (99, true));
        assert_eq!(means.iter().map(|mean| mean.2).sum::<usize>(), 99_999);
    }
}
