//! What the lines below a run's bar show: the loss, the objective's main metrics, the curve of one metric, and the latest sample.

use super::sparkline::Sparkline;
use crate::decimals::{fixed, short};

/// The metrics that are shown besides the loss if a step has them, the most important first; a prefix up to a `/` is ignored.
const MAIN: [&str; 10] = [
    "accuracy",
    "margin",
    "objective/scores",
    "rewards/mean",
    "scores/mean",
    "kl",
    "kl/reference",
    "policy/entropy_avg",
    "entropy",
    "token_accuracy",
];
/// How many of them are shown.
const SHOWN: usize = 3;
/// Characters of a sample's line.
const WIDTH: usize = 76;

/// The content of these lines.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The metric whose curve is drawn; `None`: the loss.
    watched: Option<String>,
    curve: Sparkline,
    loss: f64,
    /// The latest value of each main metric and of the watched one: metrics of a rollout are not in every step.
    latest: Vec<(String, f64)>,
    sample: Option<String>,
}

impl View {
    /// A view with the curve of `watched`, or of the loss.
    pub fn new(watched: Option<String>) -> View {
        View { watched: watched.filter(|name| name != "loss"), ..View::default() }
    }

    /// Adds a step.
    pub fn step(&mut self, loss: f64, metrics: &[(String, f64)]) {
        self.loss = loss;
        for (name, value) in metrics {
            let is_watched = self.watched.as_ref() == Some(name);
            if is_watched {
                self.curve.add(*value);
            }
            if is_watched || rank(name).is_some() {
                match self.latest.iter_mut().find(|(own, _)| own == name) {
                    Some((_, latest)) => *latest = *value,
                    None => self.latest.push((name.clone(), *value)),
                }
            }
        }
        if self.watched.is_none() {
            self.curve.add(loss);
        }
    }

    /// Shows a sample: its first line, as far as it fits.
    pub fn sample(&mut self, text: &str) {
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line: String = line.chars().filter(|c| !c.is_control()).take(WIDTH).collect();
        self.sample = (!line.is_empty()).then_some(line);
    }

    /// The line of metrics: the curve behind the metric that it shows.
    pub fn numbers(&self) -> String {
        let number = |name: &str, value: f64| format!("{name} {}", short(value));
        let curve = self.curve.text();
        let gap = if curve.is_empty() { "" } else { " " };
        let mut parts = vec![format!("loss {}", fixed(self.loss, 4))];
        match &self.watched {
            None => parts[0].push_str(&format!("{gap}{curve}")),
            Some(name) => {
                let latest = self.latest.iter().find(|(own, _)| own == name);
                let number = latest.map_or_else(|| name.clone(), |(_, value)| number(name, *value));
                parts.push(format!("{number}{gap}{curve}"));
            }
        }
        let others = self.latest.iter().filter(|(name, _)| self.watched.as_ref() != Some(name));
        let mut main: Vec<_> = others.filter_map(|(name, value)| Some((rank(name)?, number(name, *value)))).collect();
        main.sort_by_key(|(rank, _)| *rank);
        parts.extend(main.into_iter().take(SHOWN).map(|(_, text)| text));
        parts.join("  ")
    }

    /// The line of the latest sample.
    pub fn sampled(&self) -> Option<&str> {
        self.sample.as_deref()
    }
}

/// Rank of a metric among the main ones.
fn rank(name: &str) -> Option<usize> {
    let is = |main: &str| name.strip_suffix(main).is_some_and(|before| before.is_empty() || before.ends_with('/'));
    MAIN.iter().position(|main| is(main))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    /// Catches a curve behind another metric than its own, a metric of a rollout that vanishes in the steps between rollouts, and
    /// main metrics in the order of the log.
    #[test]
    fn the_curve_is_that_of_the_watched_metric() {
        let steps = [
            metrics(&[("objective/kl", 1.0), ("odd", 5.0), ("objective/scores", 0.5)]),
            metrics(&[("objective/kl", 2.0)]),
        ];
        let view = |watched: Option<&str>| {
            let mut view = View::new(watched.map(str::to_owned));
            steps.iter().zip([3.0, 1.0]).for_each(|(metrics, loss)| view.step(loss, metrics));
            view.numbers()
        };
        assert_eq!(view(None), "loss 1.0000 █▁  objective/scores 0.5  objective/kl 2");
        assert_eq!(view(Some("loss")), view(None));
        assert_eq!(view(Some("objective/kl")), "loss 1.0000  objective/kl 2 ▁█  objective/scores 0.5");
        assert_eq!(view(Some("odd")), "loss 1.0000  odd 5  objective/scores 0.5  objective/kl 2");
    }

    /// Catches a sample that breaks the lines of the bar, and one that is empty.
    #[test]
    fn a_sample_is_one_line() {
        let mut view = View::new(None);
        view.sample(&format!("\n\nOnce\u{1b}[2J {}\nmore", "x".repeat(200)));
        let line = view.sampled().unwrap();
        assert!(line.starts_with("Once[2J x") && line.chars().count() == WIDTH, "{line}");
        view.sample("\n");
        assert_eq!(view.sampled(), None);
    }
}
