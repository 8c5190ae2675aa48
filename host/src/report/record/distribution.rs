//! Lines of histograms.jsonl, of which a long run has more than a picture shows.

use serde::Deserialize;

/// Steps of a distribution that are kept: at least this many, if there are so many, and less than twice as many.
const STEPS: usize = 32;

/// Values or pairs counted in bins; see `train/histogram.rs`, which writes them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Distribution {
    /// The step.
    pub step: u64,
    /// `train` or `eval`.
    pub kind: String,
    /// What was counted.
    pub name: String,
    /// The bins' edges, one more than there are bins.
    pub edges: Vec<f64>,
    /// How many are in each bin.
    pub counts: Vec<u64>,
    /// Of a calibration: each bin's mean prediction; absent for a bin without pairs.
    #[serde(default)]
    pub predicted: Vec<Option<f64>>,
    /// Of a calibration: the share of each bin's pairs that came true.
    #[serde(default)]
    pub observed: Vec<Option<f64>>,
}

/// A distribution over the steps of a run: some of its lines at equal distances, and the last one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Over {
    kept: Vec<Distribution>,
    last: Option<Distribution>,
    /// Lines seen, and the distance between two that are kept.
    seen: usize,
    distance: usize,
}

impl Over {
    /// Adds the next line.
    pub fn add(&mut self, line: Distribution) {
        self.distance = self.distance.max(1);
        if self.seen.is_multiple_of(self.distance) {
            self.kept.push(line.clone());
        }
        self.seen += 1;
        self.last = Some(line);
        if self.kept.len() == 2 * STEPS {
            let mut at = 0;
            self.kept.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.distance *= 2;
        }
    }

    /// The lines in their order, the first and the last among them.
    pub fn lines(&self) -> impl Iterator<Item = &Distribution> {
        let last = self.last.as_ref().filter(|last| self.kept.last() != Some(last));
        self.kept.iter().chain(last)
    }

    /// The last line.
    pub fn last(&self) -> Option<&Distribution> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a long run that keeps every line, gaps that grow, and a last line that is lost or kept twice.
    #[test]
    fn lines_are_kept_at_equal_distances() {
        let line = |step| Distribution {
            step,
            kind: "train".into(),
            name: "x".into(),
            edges: vec![0.0, 1.0],
            counts: vec![step],
            predicted: Vec::new(),
            observed: Vec::new(),
        };
        for total in [1, 2, 63, 64, 65, 1000, 100_001] {
            let mut over = Over::default();
            (0..total).for_each(|step| over.add(line(step)));
            let steps: Vec<u64> = over.lines().map(|line| line.step).collect();
            assert_eq!((steps[0], steps.last()), (0, Some(&(total - 1))), "{total}");
            assert!(steps.len() <= 2 * STEPS && steps.len() >= STEPS.min(total as usize), "{total}: {}", steps.len());
            let gaps: Vec<u64> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.iter().rev().skip(1).all(|gap| *gap == gaps[0]), "{total}: {gaps:?}");
            assert!(gaps.iter().all(|gap| *gap > 0), "{total}");
        }
    }
}
