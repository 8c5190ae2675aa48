//! What a study needs of its experiments: different ones, and metrics that they report.

use super::{Halving, Study};
use crate::config::draft::SWEEP;
use crate::config::experiment::{Experiment, Length};
use crate::config::tables::metric::MetricRule;
use crate::error::Result;
use crate::keys::mistake::{Mistake, refusal};
use crate::keys::tree::place_of;

/// Prefix of the metrics of an evaluation.
const EVAL: &str = "eval/";

impl Study {
    /// The metric by which arms are compared: that of `sweep.metric`; else the reward of held-out answers, if there is one; else the
    /// held-out loss.
    pub fn metric(&self, runs: &[Experiment]) -> MetricRule {
        let rewarded =
            |one: &Experiment| one.rollout.is_some() && one.eval.generate.is_some() && !one.reward.is_empty();
        let has_reward = !runs.is_empty() && runs.iter().all(rewarded);
        self.metric.clone().unwrap_or_else(|| match has_reward {
            true => MetricRule { metric: "eval/reward".to_owned(), larger_is_better: true },
            false => MetricRule { metric: "eval/loss".to_owned(), larger_is_better: false },
        })
    }

    /// The metrics that `[sweep]` names, and the one that decides about rungs, each with its key. A run that reports none of that
    /// name cannot be compared.
    pub fn compared_by(&self, halving: Option<&Halving>) -> Vec<(String, String)> {
        let own = self.metric.as_ref().map(|rule| ("sweep.metric".to_owned(), rule.metric.clone()));
        let rungs = halving.filter(|halving| self.metric.as_ref() != Some(&halving.metric));
        let rungs = rungs.map(|halving| ("sweep.halving.metric".to_owned(), halving.metric.metric.clone()));
        own.into_iter().chain(rungs).collect()
    }

    /// A note for a comparison by losses that may be different functions.
    pub fn note(&self) -> Option<String> {
        let differ = self.swept_keys().iter().any(|key| key.starts_with("objective") || key.starts_with("reward"));
        (self.metric.is_none() && differ).then(|| {
            "sweep.metric is not set, and the objectives differ between arms: a loss, and a reward whose weights differ, do not compare \
             them; name a metric that does, such as metric = \"max:eval/exact_match\""
                .to_owned()
        })
    }

    /// Successive halving, if the study has it.
    ///
    /// # Errors
    /// A request error with every mistake: two runs whose experiments are equal, or rungs without an evaluation.
    pub fn check(&self, runs: &[Experiment]) -> Result<Option<Halving>> {
        let mut mistakes = Vec::new();
        let nameless = |one: &Experiment| Experiment { name: String::new(), ..one.clone() };
        for (at, one) in runs.iter().enumerate() {
            if let Some(earlier) = runs[..at].iter().position(|other| nameless(other) == nameless(one)) {
                let (a, b) = (&self.runs[earlier].name, &self.runs[at].name);
                let message = format!(
                    "the runs {a} and {b} are equal, for example because a value is the default of its key; remove one of them"
                );
                mistakes.push(Mistake::new(
                    self.pipeline.place_of_run(at).unwrap_or_else(|| place_of(&self.root, SWEEP)),
                    SWEEP,
                    message,
                ));
            }
        }
        let halving = self.halving(runs, &mut mistakes);
        match mistakes.is_empty() {
            true => Ok(halving),
            false => Err(refusal(self.pipeline.file(), mistakes)),
        }
    }

    fn halving(&self, runs: &[Experiment], mistakes: &mut Vec<Mistake>) -> Option<Halving> {
        let written = self.halving.as_ref()?;
        let mut refuse = |key: &str, message: String| {
            mistakes.push(Mistake::new(place_of(&self.root, key), key, message));
            None
        };
        let metric = match written.metric.as_deref().map(MetricRule::parse) {
            Some(Err(message)) => return refuse("sweep.halving.metric", message),
            Some(Ok(metric)) => metric,
            None => self.metric(runs),
        };
        let Some(first) = written.first_rung else {
            return refuse(
                "sweep.halving.first_rung",
                "missing; the steps of the first rung, for example first_rung = 100".to_owned(),
            );
        };
        let steps = |one: &Experiment| match one.train.length {
            Length::Steps(steps) => Some(steps),
            Length::Epochs(_) => None,
        };
        let total = steps(&runs[0]).filter(|total| runs.iter().all(|one| steps(one) == Some(*total)));
        let Some(total) = total else {
            return refuse("sweep.halving", "needs train.steps, with the same number for all runs".to_owned());
        };
        if first >= total {
            return refuse(
                "sweep.halving.first_rung",
                format!("{first} steps are not below train.steps = {total}; lower it"),
            );
        }
        let unmeasured =
            |one: &&Experiment| metric.metric.starts_with(EVAL) && (one.eval.every == 0 || one.eval.every > first);
        if let Some(one) = runs.iter().find(unmeasured) {
            let name = &metric.metric;
            let message = format!(
                "{name} is not measured by step {first}, because eval.every = {}; set eval.every to a divisor of first_rung",
                one.eval.every
            );
            return refuse("sweep.halving.first_rung", message);
        }
        let factor = written.factor();
        let below =
            std::iter::successors(Some(first), |rung| rung.checked_mul(factor)).take_while(|rung| *rung < total);
        Some(Halving { rungs: below.chain([total]).collect(), factor, metric })
    }
}
