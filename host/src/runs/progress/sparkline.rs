//! A curve in one line of text.

/// Characters of a curve at most.
const WIDTH: usize = 24;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The values of a whole run, in at most [`WIDTH`] means over equally many steps.
#[derive(Debug, Clone, Default)]
pub struct Sparkline {
    /// Means over `each` values.
    means: Vec<f64>,
    /// Values per mean.
    each: usize,
    /// Sum and number of the values since the last mean.
    open: (f64, usize),
}

impl Sparkline {
    /// Adds a value; one that is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.each = self.each.max(1);
        self.open = (self.open.0 + value, self.open.1 + 1);
        if self.open.1 < self.each {
            return;
        }
        self.means.push(self.open.0 / self.open.1 as f64);
        self.open = (0.0, 0);
        if self.means.len() > WIDTH {
            // An odd last mean waits for its partner.
            if self.means.len() % 2 == 1
                && let Some(last) = self.means.pop()
            {
                self.open = (last * self.each as f64, self.each);
            }
            self.means = self.means.chunks_exact(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
            self.each *= 2;
        }
    }

    /// The curve: a block for each mean, the lowest for the smallest; empty with fewer than two means.
    pub fn text(&self) -> String {
        let (low, high) =
            self.means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
        if self.means.len() < 2 {
            return String::new();
        }
        let most = (BLOCKS.len() - 1) as f64;
        let block = |value: &f64| match high > low {
            true => BLOCKS[(((value - low) / (high - low)) * most).round() as usize],
            false => BLOCKS[0],
        };
        self.means.iter().map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: impl IntoIterator<Item = f64>) -> Sparkline {
        let mut line = Sparkline::default();
        values.into_iter().for_each(|value| line.add(value));
        line
    }

    /// Catches a curve that is upside down, one that a single NaN destroys, and a division by an empty range.
    #[test]
    fn blocks_follow_the_values() {
        assert_eq!(line([3.0, f64::NAN, 2.0, 1.0]).text(), "█▅▁");
        assert_eq!(line([1.0, 1.0]).text(), "▁▁");
        assert_eq!(line([1.0]).text(), "");
    }

    /// Catches a curve that outgrows its line, and means that lose values of a long run.
    #[test]
    fn a_long_run_keeps_its_width_and_its_means() {
        let long = line((0..100_000).map(f64::from));
        assert!((WIDTH / 2..=WIDTH).contains(&long.means.len()), "{}", long.means.len());
        let gaps: Vec<f64> = long.means.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap == long.each as f64), "{gaps:?}, {}", long.each);
        assert_eq!(long.text().chars().next(), Some('▁'));
        assert_eq!(long.text().chars().last(), Some('█'));
    }
}
