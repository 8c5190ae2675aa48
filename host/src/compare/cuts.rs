//! The first window, cut into different numbers of micro-batches. Neither the loss nor the gradient norm may depend on the cut:
//! the normalisers are counted over the whole window, so that cutting it saves memory and changes nothing else.

use serde::Serialize;

use super::{
    agreement::Tolerance,
    backend_run::{Entry, Opened, one_line},
    deaths::mark::Work,
    stats::{of_losses, relative},
};
use crate::{
    data::{Sequence, TrainingData, Window, batches::pack},
    error::Result,
    objectives::micro_batch::{cut_answers, unpack},
};

/// The loss and the gradient norm of a window by its number of micro-batches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cuts {
    /// The most micro-batches that the window can be cut into: its rows, or its groups of rows that stay together.
    pub most: usize,
    /// The results, by rising number of micro-batches.
    pub cuts: Vec<Cut>,
    /// The largest differences from the first cut.
    pub difference: Difference,
    /// The differences that rounding explains.
    pub tolerance: Tolerance,
    /// Why there are no results.
    pub failure: Option<String>,
}

/// The window in one number of micro-batches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cut {
    /// The number of micro-batches.
    pub micro_batches: usize,
    /// The loss of the window.
    pub loss: f64,
    /// The norm of its gradient, before clipping.
    pub grad_norm: f64,
}

/// Differences.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Difference {
    /// Of the loss: relative if it is above 1, else absolute.
    pub loss: f64,
    /// Of the gradient norm, relative.
    pub grad_norm: f64,
}

impl Cuts {
    /// A window that was not cut, and why.
    pub fn failed(why: String, tolerance: Tolerance) -> Cuts {
        Cuts { most: 0, cuts: Vec::new(), difference: Difference::default(), tolerance, failure: Some(why) }
    }

    /// Whether the results are equal up to rounding.
    ///
    /// # Errors
    /// Why nothing is compared.
    pub fn agree(&self) -> Result<bool, &'static str> {
        if self.cuts.len() < 2 {
            return Err("the window was cut in one way only");
        }
        if !self.cuts.iter().all(|cut| cut.loss.is_finite() && cut.grad_norm.is_finite()) {
            return Err("a loss or norm is not finite");
        }
        if self.cuts.iter().all(|cut| cut.grad_norm == 0.0) {
            return Err("its gradient is 0");
        }
        Ok(self.difference.loss <= self.tolerance.loss && self.difference.grad_norm <= self.tolerance.grad_norm)
    }
}

/// Computes the gradient of the first window once for each of `counts`, from the initial weights, on a session whose handles carry
/// `tag`. A number of micro-batches that the window does not have is replaced by the next smaller one. Objectives with their own text
/// are left out, because they read a new window each time; the loss is then not that of a run.
pub fn measure(entry: &Entry, counts: &[usize], data: &TrainingData, tag: u16) -> Cuts {
    let tolerance = Tolerance::of(entry.dtype(), entry.dtype());
    match results(entry, counts, data, tag) {
        Ok((most, cuts)) => Cuts { most, difference: difference(&cuts), cuts, tolerance, failure: None },
        Err(error) => Cuts::failed(one_line(&error), tolerance),
    }
}

fn results(entry: &Entry, counts: &[usize], data: &TrainingData, tag: u16) -> Result<(usize, Vec<Cut>)> {
    let marker = entry.mark.of(Work::Cuts).begin(1);
    let mut opened = entry.open(entry.setup.session(tag)?, data)?;
    let Opened { learner, device, .. } = &mut opened;
    learner.auxiliary.clear();
    let window = learner.window(0, &marker)?;
    let whole_groups = learner.rollouts.is_none() || learner.objectives.whole_groups();
    let sequences: Vec<Sequence> = window.iter().flat_map(unpack).collect();
    let window = Window::new(sequences.clone())?;
    let most = number_of_parts(&sequences, 1, whole_groups);
    let mut cuts: Vec<Cut> = Vec::new();
    for count in counts {
        let parts = cut_answers(&window, smallest_limit(&sequences, *count, whole_groups), whole_groups)?;
        let micro_batches = parts.len();
        if cuts.iter().any(|cut| cut.micro_batches == micro_batches) {
            continue;
        }
        let (out, gradient) = learner.gradient(&parts, &marker)?;
        cuts.push(Cut { micro_batches, loss: out.loss, grad_norm: gradient.norm });
        // Another cut needs buffers of other sizes.
        device.trim();
    }
    cuts.sort_by_key(|cut| cut.micro_batches);
    Ok((most, cuts))
}

fn number_of_parts(sequences: &[Sequence], limit: usize, whole_groups: bool) -> usize {
    match whole_groups {
        true => pack::micro_batches(sequences, limit).len(),
        false => pack::micro_batches_apart(sequences, limit).len(),
    }
}

/// The fewest positions of a micro-batch with which there are at most `count` of them.
fn smallest_limit(sequences: &[Sequence], count: usize, whole_groups: bool) -> usize {
    let (mut low, mut high) = (1, sequences.iter().map(Sequence::extent).sum::<usize>().max(1));
    // More positions never give more micro-batches.
    while low < high {
        let middle = low + (high - low) / 2;
        match number_of_parts(sequences, middle, whole_groups) <= count {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

fn difference(cuts: &[Cut]) -> Difference {
    let Some(first) = cuts.first() else { return Difference::default() };
    let largest = |of: &dyn Fn(&Cut) -> f64| cuts.iter().map(of).fold(0.0, f64::max);
    Difference {
        loss: largest(&|cut| of_losses(cut.loss, first.loss)),
        grad_norm: largest(&|cut| relative(cut.grad_norm, first.grad_norm)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(lengths: &[u32]) -> Vec<Sequence> {
        let one = |length: &u32| {
            let ids: Vec<u32> = (0..*length).collect();
            Sequence { supervised: vec![true; ids.len()], ids, ..Default::default() }
        };
        lengths.iter().map(one).collect()
    }

    /// Catches a search that misses the limit by one, and one that does not end where the window has fewer rows.
    #[test]
    fn a_window_is_cut_into_the_number_of_parts_that_was_asked_for() {
        for lengths in [&[9; 8][..], &[3, 30, 4, 5, 9, 2, 6, 5], &[7]] {
            let all = sequences(lengths);
            for count in [1, 2, 4, 8, 100] {
                let limit = smallest_limit(&all, count, true);
                let parts = number_of_parts(&all, limit, true);
                assert!(parts <= count.min(all.len()), "{lengths:?} in {count}: {parts}");
                assert!(
                    limit == 1 || number_of_parts(&all, limit - 1, true) > count,
                    "{lengths:?} in {count}: {limit}"
                );
            }
            assert_eq!(number_of_parts(&all, smallest_limit(&all, all.len(), true), true), all.len());
        }
        let equal = sequences(&[9; 8]);
        assert!([1, 2, 4, 8].iter().all(|n| number_of_parts(&equal, smallest_limit(&equal, *n, true), true) == *n));
    }

    /// Catches a difference of numbers that are not finite that counts as none.
    #[test]
    fn the_largest_difference_is_reported() {
        let cut = |micro_batches, loss, grad_norm| Cut { micro_batches, loss, grad_norm };
        let found = difference(&[cut(1, 2.0, 4.0), cut(2, 2.5, 4.0), cut(4, 1.0, 5.0)]);
        assert_eq!((found.loss, (found.grad_norm * 10.0).round()), (0.5, 2.0));
        assert_eq!(difference(&[cut(1, 0.0, 0.0), cut(2, 0.0, 0.0)]), Difference::default());
        assert!(difference(&[cut(1, 1e-12, 1.0), cut(2, -3e-12, 1.0)]).loss < 1e-11, "the parts of the loss cancel");
        let agree = |cuts: Vec<Cut>| {
            let tolerance = Tolerance { loss: 1e-6, grad_norm: 1e-5 };
            Cuts { most: 3, difference: difference(&cuts), cuts, tolerance, failure: None }.agree()
        };
        assert_eq!(agree(vec![cut(1, 1.0, 1.0), cut(2, 1.0, 1.0 + 1e-6)]), Ok(true));
        assert_eq!(agree(vec![cut(1, 1.0, 1.0), cut(2, 1.0, 1.0 + 1e-4)]), Ok(false));
        assert_eq!(agree(vec![cut(1, f64::NAN, 1.0), cut(2, f64::NAN, 1.0)]), Err("a loss or norm is not finite"));
        assert_eq!(agree(vec![cut(1, 0.0, 0.0), cut(2, 0.0, 0.0)]), Err("its gradient is 0"));
        assert_eq!(agree(vec![cut(3, 1.0, 1.0)]), Err("the window was cut in one way only"));
        assert!(difference(&[cut(1, 1.0, 1.0), cut(2, f64::NAN, 1.0), cut(3, 1.0, 1.0)]).loss == f64::INFINITY);
    }
}
