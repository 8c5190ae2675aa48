//! Reward hacking: the reward that is trained rises while a reward that is only measured falls, or while answers grow
//! (Gao et al. 2022, arXiv 2210.10760; Singhal et al. 2023, arXiv 2310.03716, on length).

use std::collections::VecDeque;

use super::condition::{Condition, Finding, Line, moments, value};
use crate::decimals::short;

/// Rollouts whose means are compared.
const ROLLOUTS: usize = 8;
/// Standard errors that a difference of two means must exceed.
const ERRORS: f64 = 4.0;
/// How many times as long as at first answers count as grown.
const GROWN: f64 = 2.0;

/// What a rise of the trained reward is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    /// A reward of weight 0, by the name of its metric: its best [`ROLLOUTS`] in a row before.
    Measured(String),
    /// The length of answers, by the name of its metric: its first rollouts.
    Length(String),
}

/// The condition.
pub struct Hacking {
    /// The metrics of the trained rewards, each with its weight.
    trained: Vec<(String, f64)>,
    against: Against,
    /// Trained reward and compared metric of the latest rollouts.
    rollouts: VecDeque<[f64; 2]>,
    /// Mean and variance of both over the rollouts with which the latest ones are compared.
    earlier: Option<[(f64, f64); 2]>,
}

impl Hacking {
    /// Compares the weighted sum of `trained` with `against`.
    pub fn new(trained: Vec<(String, f64)>, against: Against) -> Hacking {
        Hacking { trained, against, rollouts: VecDeque::new(), earlier: None }
    }
}

/// Mean and variance of both columns.
fn spread<'a>(rollouts: impl ExactSizeIterator<Item = &'a [f64; 2]> + Clone) -> [(f64, f64); 2] {
    [0, 1].map(|column| moments(rollouts.clone().map(|rollout| rollout[column])))
}

/// Whether `now` is greater than `then` by more than rounding and by [`ERRORS`] standard errors of the difference.
fn is_greater(now: (f64, f64), then: (f64, f64)) -> bool {
    let error = ((now.1 + then.1) / ROLLOUTS as f64).sqrt();
    now.0 - then.0 > ERRORS * error + 1e-6 * then.0.abs()
}

impl Condition for Hacking {
    fn find(&mut self, line: &Line) -> Option<Finding> {
        let (Against::Measured(metric) | Against::Length(metric)) = &self.against;
        let other = value(line, metric)?;
        let parts = self.trained.iter().map(|(name, weight)| Some(value(line, name)? * weight));
        let trained: f64 = parts.sum::<Option<f64>>()?;
        self.rollouts.push_back([trained, other]);
        if self.rollouts.len() < 2 * ROLLOUTS {
            return None;
        }
        self.rollouts.drain(..self.rollouts.len() - 2 * ROLLOUTS);
        // The latest rollouts are compared with others: none is in both.
        let candidate = spread(self.rollouts.iter().take(ROLLOUTS));
        let improves =
            |earlier: &[(f64, f64); 2]| matches!(self.against, Against::Measured(_)) && candidate[1].0 > earlier[1].0;
        if self.earlier.as_ref().is_none_or(improves) {
            self.earlier = Some(candidate);
        }
        let (then, now) = (self.earlier?, spread(self.rollouts.iter().skip(ROLLOUTS)));
        let worse = match self.against {
            Against::Measured(_) => is_greater(then[1], now[1]),
            Against::Length(_) => now[1].0 > GROWN * then[1].0,
        };
        let holds = is_greater(now[0], then[0]) && worse;
        let arrow = |column: usize| format!("{} to {}", short(then[column].0), short(now[column].0));
        let why = format!(
            "over {ROLLOUTS} rollouts, the trained reward went from {} and {metric} from {}",
            arrow(0),
            arrow(1)
        );
        Some(Finding { value: Some(now[1].0), metric: None, why, holds })
    }
}
