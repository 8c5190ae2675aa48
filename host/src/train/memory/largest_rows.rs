//! The rows that make the largest micro-batch, and how many positions a forward pass without a backward computes.

use std::cmp::Reverse;

use crate::{
    config::experiment::Batch,
    data::{Batcher, Examples, Sequence, order::Stretch},
    objectives::Objectives,
    setup::Setup,
};

/// Minimum number of positions per forward-only pass, even if a step has fewer: without a backward pass they take little memory.
const LEAST_FORWARD: usize = 1024;

/// Number of positions per pass when nothing is kept for a backward pass (held-out rows, the reference's pass over
/// the data, the statistics of rollouts, reward models): at most `train.micro_batch_tokens`, and no more than the largest training micro-batch has or
/// [`LEAST_FORWARD`], so that they take no more memory than training.
pub fn forward_tokens(setup: &Setup, objectives: &Objectives, train: &dyn Examples) -> usize {
    let most = setup.experiment().train.micro_batch_tokens;
    let rows = Rows { batch: setup.experiment().train.batch, ..all_rows(setup, objectives, train) };
    let positions = match &setup.experiment().rollout {
        Some(rollout) if objectives.needs().rollouts => {
            let context = setup.config.context as usize;
            rows.worst_prompts(most, rollout.samples, rollout.max_new_tokens, context).1
        }
        _ => rows.worst_positions(most),
    };
    positions.max(LEAST_FORWARD).min(most)
}

/// Rows of `data`, all of which may be in one micro-batch.
pub(crate) fn all_rows<'a>(setup: &Setup, objectives: &Objectives, data: &'a dyn Examples) -> Rows<'a> {
    Rows {
        data,
        prefix: setup.tokenizer.prefix(),
        context: setup.experiment().longest_sequence(setup.config.context as usize),
        reads_last: objectives.needs().reads_last(),
        batch: Batch::Sequences(usize::MAX),
    }
}

/// Rows, and how a step takes them.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The rows.
    pub data: &'a dyn Examples,
    /// The token that every sequence begins with.
    pub prefix: Option<u32>,
    /// The longest sequence.
    pub context: usize,
    /// Whether every sequence has one position more, which reads its last token.
    pub reads_last: bool,
    /// What a step takes.
    pub batch: Batch,
}

impl<'a> Rows<'a> {
    /// The rows that `batcher` takes.
    pub fn of(batcher: &'a Batcher, context: usize, reads_last: bool, batch: Batch) -> Rows<'a> {
        Rows { data: batcher.examples(), prefix: batcher.prefix(), context, reads_last, batch }
    }

    /// The sequences of the worst micro-batch of at most `most` positions.
    pub fn worst(self, most: usize) -> Vec<Sequence> {
        self.read(&self.worst_stretches(most).0)
    }

    /// How many positions the worst micro-batch of at most `most` has.
    pub fn worst_positions(self, most: usize) -> usize {
        self.worst_stretches(most).1
    }

    fn worst_stretches(self, most: usize) -> (Vec<Stretch>, usize) {
        let stretches = self.stretches();
        let rows = match self.batch {
            Batch::Tokens(_) => usize::MAX,
            Batch::Sequences(rows) | Batch::Pairs(rows) | Batch::Prompts(rows) => rows,
        };
        // A step's tokens do not count the positions that read a last token.
        let sequences = self.read(stretches.get(..1).unwrap_or_default()).len();
        let more = if self.reads_last { sequences } else { 0 };
        let (most, counted) = match self.batch {
            Batch::Tokens(tokens) if tokens < most => (tokens, 0),
            _ => (most, more),
        };
        let sizes: Vec<usize> = stretches.iter().map(|stretch| stretch.targets() + counted).collect();
        let chosen: Vec<Stretch> = worst(&sizes, most, rows).into_iter().map(|index| stretches[index]).collect();
        let positions = chosen.iter().map(|stretch| stretch.targets() + more).sum();
        (chosen, positions)
    }

    /// The prompts whose answers make the worst micro-batch of at most `most` positions, and how many positions it has: `samples`
    /// answers to each, which are never cut apart, of up to `answer` tokens in a context of `context`.
    pub fn worst_prompts(self, most: usize, samples: usize, answer: usize, context: usize) -> (Vec<Stretch>, usize) {
        let stretches = self.stretches();
        let length = |stretch: &Stretch| samples * (stretch.targets() + 1).saturating_add(answer).min(context);
        let sizes: Vec<usize> = stretches.iter().map(length).collect();
        let prompts = match self.batch {
            Batch::Prompts(prompts) => prompts,
            _ => usize::MAX,
        };
        let chosen = worst(&sizes, most, prompts);
        let positions = chosen.iter().map(|index| sizes[*index]).sum();
        (chosen.into_iter().map(|index| stretches[index]).collect(), positions)
    }

    fn stretches(self) -> Vec<Stretch> {
        self.data.in_order(self.context, self.prefix.is_some())
    }

    /// The sequences of `stretches`, each stretch a group of its own.
    pub fn read(self, stretches: &[Stretch]) -> Vec<Sequence> {
        let groups = stretches.iter().zip(0..);
        groups.flat_map(|(stretch, group)| self.data.sequences(*stretch, self.prefix, group)).collect()
    }
}

/// Which rows of these `sizes` (positions) make the worst micro-batch of at most `most` positions and `rows` rows: the longest one,
/// whatever its size, and then always the longest that still fits. Rows are repeated only where all of them fit, as a window
/// does that is larger than the data.
fn worst(sizes: &[usize], most: usize, rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|index| (Reverse(sizes[*index]), *index));
    let (mut chosen, mut positions) = (Vec::new(), 0_usize);
    loop {
        let before = chosen.len();
        for index in &order {
            if chosen.len() < rows && (chosen.is_empty() || positions + sizes[*index] <= most) {
                chosen.push(*index);
                positions += sizes[*index].max(1);
            }
        }
        if sizes.is_empty() || chosen.len() - before < sizes.len() || chosen.len() >= rows {
            return chosen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a batch of less than a run's largest micro-batch (the first rows instead of the longest, room left where a row
    /// fits, a window larger than the data), one that is larger than a window, and rows left out that exceed a micro-batch alone.
    #[test]
    fn gotcha_44_the_worst_micro_batch_has_the_longest_rows_and_no_room_left() {
        for (sizes, most, rows, expected) in [
            (&[3, 9, 5, 2][..], 14, 9, &[1, 2][..]),
            (&[3, 9, 5, 2], 16, 9, &[1, 2, 3]),
            (&[3, 9, 5, 2], 99, 2, &[1, 2]),
            (&[3, 9, 5, 2], 4, 9, &[1]),
            (&[4, 4], 18, 9, &[0, 1, 0, 1]),
            (&[4, 4], 18, 3, &[0, 1, 0]),
            (&[4, 3], 10, 9, &[0, 1, 1]),
            (&[4, 3], 11, 9, &[0, 1, 0]),
        ] {
            assert_eq!(worst(sizes, most, rows), expected, "{sizes:?}, {most}, {rows}");
        }
        assert!(worst(&[], 9, 9).is_empty());
    }
}
