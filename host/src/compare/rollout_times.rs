//! The time of steps that learn from sampled answers. Sampling falls into the first step of a rollout, so only whole rollouts have a
//! speed.

/// Steps of a backend, by rollout.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RolloutTimes {
    /// Positions and seconds of the steps of each rollout; the last one may not be whole.
    rollouts: Vec<Vec<(u64, f64)>>,
}

impl RolloutTimes {
    /// Adds a step; `begins` if answers were sampled for it.
    pub fn push(&mut self, begins: bool, tokens: u64, seconds: f64) {
        if begins || self.rollouts.is_empty() {
            self.rollouts.push(Vec::new());
        }
        if let Some(last) = self.rollouts.last_mut() {
            last.push((tokens, seconds));
        }
    }

    /// Whether answers are sampled.
    pub fn any(&self) -> bool {
        !self.rollouts.is_empty()
    }

    /// Positions per second of each whole rollout but the first, which warms up.
    pub fn speeds(&self) -> Vec<f64> {
        let whole = self.rollouts.len().saturating_sub(1);
        let speed = |steps: &Vec<(u64, f64)>| {
            let (tokens, seconds) = steps.iter().fold((0, 0.0), |(t, s), (tokens, seconds)| (t + tokens, s + seconds));
            tokens as f64 / seconds.max(1e-9)
        };
        self.rollouts[..whole].iter().skip(1).map(speed).collect()
    }

    /// Steps of a whole rollout: the last of those.
    pub fn steps(&self) -> Option<u64> {
        let whole = self.rollouts.len().checked_sub(2)?;
        Some(self.rollouts[whole].len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a rollout that is not whole, or the one that warms up, in the speed, and sampling that is left out.
    #[test]
    fn only_whole_rollouts_after_the_first_have_a_speed() {
        let mut times = RolloutTimes::default();
        assert!(!times.any() && times.speeds().is_empty() && times.steps().is_none());
        for rollout in 0..3 {
            times.push(true, 10, 9.0);
            times.push(false, 10, 1.0 + f64::from(rollout));
        }
        times.push(true, 10, 1.0);
        times.push(false, 10, 1.0);
        assert!(times.any());
        assert_eq!((times.speeds(), times.steps()), (vec![20.0 / 11.0, 20.0 / 12.0], Some(2)));
    }
}
