//! Arrays that the author of an objective adds to the windows of the laws.

use plugin_api::batch::{Batch, Scope, names};
use telos_random::SplitMix64;

/// An array of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Extra {
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Whole numbers only.
    pub(super) whole: bool,
}

impl Extra {
    /// Returns the batch with the array.
    pub(super) fn add(&self, batch: Batch<'static>, rng: &mut SplitMix64) -> Batch<'static> {
        if self.scope == Scope::LIST {
            return self.add_list(batch, rng);
        }
        let rows = match self.scope {
            Scope::TOKEN => batch.tokens().unwrap_or(0),
            Scope::SEQUENCE => batch.sequences().unwrap_or(0),
            _ => 1,
        };
        let one = |_| match self.whole {
            true => self.low + rng.below((self.high - self.low) as usize + 1) as f64,
            false => rng.between(self.low, self.high),
        };
        let mut values: Vec<f64> = (0..rows).map(one).collect();
        // A column belongs to the row: the answers of a pair or group share it.
        let owner = batch.find(names::GROUP).or_else(|| batch.find("row"));
        if let Some(group) = owner.filter(|_| self.name.starts_with(names::COLUMN)) {
            for s in 1..values.len() {
                if let Some(first) = group.data[..s].iter().position(|g| *g == group.data[s]) {
                    values[s] = values[first];
                }
            }
        }
        batch.with(self.name.clone(), self.scope, values)
    }

    fn add_list(&self, batch: Batch<'static>, rng: &mut SplitMix64) -> Batch<'static> {
        let (offsets, ends) = (batch.offsets().unwrap_or_default(), batch.find(names::SEGMENT_END));
        let owner = batch.find(names::GROUP).or_else(|| batch.find("row")).map(|owner| owner.data.to_vec());
        let own = |s: usize, t: usize| s == t || owner.as_ref().is_some_and(|owner| owner[s] == owner[t]);
        let sequences = offsets.len().saturating_sub(1);
        let segments = |s: usize| match ends {
            Some(ends) => ends.data[offsets[s]..offsets[s + 1]].iter().filter(|end| **end == 1.0).count(),
            None => 2,
        };
        let mut lists: Vec<Vec<f64>> = Vec::new();
        for s in 0..sequences {
            // The parts of a row share its list, which is as long as the longest of them needs.
            let longest = (0..sequences).filter(|t| own(s, *t)).map(segments).max().unwrap_or(0);
            let drawn = (0..longest + rng.below(2)).map(|_| rng.between(self.low, self.high)).collect();
            let first = (0..s).find(|t| own(s, *t)).map(|t| lists[t].clone());
            lists.push(first.unwrap_or(drawn));
        }
        let lengths = lists.iter().map(|list| list.len() as f64).collect::<Vec<_>>();
        let batch = batch.with(format!("{}{}", self.name, names::LENGTH), Scope::SEQUENCE, lengths);
        batch.with(self.name.clone(), Scope::LIST, lists.concat())
    }
}
