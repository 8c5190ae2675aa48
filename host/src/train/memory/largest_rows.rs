//! The rows that make up the largest micro-batch, and the number of positions of a forward pass without a backward pass.

use std::cmp::Reverse;

use super::micro_batch::micro_batch_tokens;
use crate::{
    config::experiment::Batch,
    data::{Batcher, Examples, Sequence, order::DocumentSpan},
    objectives::Objectives,
    setup::Setup,
};

/// Minimum number of positions of a forward-only pass, even if a step has fewer: without a backward pass they take little
/// memory.
const LEAST_FORWARD: usize = 1024;

/// Returns the maximum positions of a pass that keeps nothing for a backward pass (held-out rows, the reference's pass over the
/// data, the statistics of rollouts, reward models): at most [`micro_batch_tokens`], and no more than the largest training
/// micro-batch has or [`LEAST_FORWARD`], so that such a pass takes no more memory than training.
pub fn forward_tokens(setup: &Setup, objectives: &Objectives, train: &dyn Examples) -> usize {
    let most = micro_batch_tokens(setup, objectives);
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

/// Returns all rows of `data` as if a step could take all of them in one micro-batch.
pub(crate) fn all_rows<'a>(setup: &Setup, objectives: &Objectives, data: &'a dyn Examples) -> Rows<'a> {
    Rows {
        data,
        prefix: setup.tokenizer.prefix(),
        context: setup.experiment().longest_sequence(setup.config.context as usize),
        reads_last: objectives.needs().reads_last(),
        batch: Batch::Sequences(usize::MAX),
    }
}

/// Rows, and how many of them a step takes.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// The data.
    pub data: &'a dyn Examples,
    /// The token that every sequence begins with.
    pub prefix: Option<u32>,
    /// Maximum length of a sequence.
    pub context: usize,
    /// Whether every sequence has one more position, which reads its last token.
    pub reads_last: bool,
    /// Size of a step's batch.
    pub batch: Batch,
}

impl<'a> Rows<'a> {
    /// Returns the rows that `batcher` takes.
    pub fn of(batcher: &'a Batcher, context: usize, reads_last: bool, batch: Batch) -> Rows<'a> {
        Rows { data: batcher.examples(), prefix: batcher.prefix(), context, reads_last, batch }
    }

    /// Returns the sequences of the worst micro-batch of at most `most` positions.
    pub fn worst(self, most: usize) -> Vec<Sequence> {
        self.read(&self.worst_spans(most).0)
    }

    /// Returns the number of positions of the worst micro-batch of at most `most`.
    pub fn worst_positions(self, most: usize) -> usize {
        self.worst_spans(most).1
    }

    fn worst_spans(self, most: usize) -> (Vec<DocumentSpan>, usize) {
        let spans = self.spans();
        let rows = match self.batch {
            Batch::Tokens(_) => usize::MAX,
            Batch::Sequences(rows) | Batch::Pairs(rows) | Batch::Prompts(rows) => rows,
        };
        // A step's token count does not include the positions that read a last token.
        let sequences = self.read(spans.get(..1).unwrap_or_default()).len();
        let more = if self.reads_last { sequences } else { 0 };
        let contexts = self.contexts(&spans);
        let (most, counted) = match self.batch {
            Batch::Tokens(tokens) if tokens < most && contexts.is_empty() => (tokens, 0),
            _ => (most, more),
        };
        let own = spans.iter().map(|span| span.targets() + counted);
        let others = contexts.iter().map(|extents| extents.iter().sum()).chain(std::iter::repeat(0));
        let sizes: Vec<usize> = own.zip(others).map(|(own, other)| own.max(other)).collect();
        let mut chosen: Vec<DocumentSpan> = worst(&sizes, most, rows).into_iter().map(|index| spans[index]).collect();
        if let Batch::Tokens(tokens) = self.batch {
            // A step has no more targets than this, however long the other prompts are.
            let mut sums = chosen.iter().scan(0, |sum, span| {
                *sum += span.targets();
                Some(*sum)
            });
            let fitting = sums.position(|sum| sum > tokens).unwrap_or(chosen.len());
            chosen.truncate(fitting.max(1));
        }
        let positions: usize = chosen.iter().map(|span| span.targets() + more).sum();
        if contexts.is_empty() {
            return (chosen, positions);
        }
        let behind: usize = self.read(&chosen).iter().map(Sequence::extent).sum();
        (chosen, positions.max(behind))
    }

    /// Returns the prompts whose answers make up the worst micro-batch of at most `most` positions, and its number of
    /// positions: `samples` answers to each prompt, which are never split, of up to `answer` tokens in a context of `context`.
    pub fn worst_prompts(
        self,
        most: usize,
        samples: usize,
        answer: usize,
        context: usize,
    ) -> (Vec<DocumentSpan>, usize) {
        let spans = self.spans();
        let prompts = spans.iter().map(|span| span.targets() + 1);
        let others = self.contexts(&spans).into_iter().map(|extents| extents.iter().sum::<usize>());
        let length = |(own, other): (usize, usize)| samples * own.max(other).saturating_add(answer).min(context);
        let sizes: Vec<usize> = prompts.zip(others.chain(std::iter::repeat(0))).map(length).collect();
        let prompts = match self.batch {
            Batch::Prompts(prompts) => prompts,
            _ => usize::MAX,
        };
        let chosen = worst(&sizes, most, prompts);
        let positions = chosen.iter().map(|index| sizes[*index]).sum();
        (chosen.into_iter().map(|index| spans[index]).collect(), positions)
    }

    /// The positions of the largest pass over each row's sequences; empty if the rows have no other prompts.
    fn contexts(self, spans: &[DocumentSpan]) -> Vec<Vec<usize>> {
        let has_other = self.read(spans.get(..1).unwrap_or_default()).iter().any(|row| row.context_prompt.is_some());
        let own = |span| self.read(std::slice::from_ref(span)).iter().map(Sequence::extent).collect();
        spans.iter().filter(|_| has_other).map(own).collect()
    }

    fn spans(self) -> Vec<DocumentSpan> {
        self.data.in_order(self.context, self.prefix.is_some())
    }

    /// Returns the sequences of `spans`; each span is its own group.
    pub fn read(self, spans: &[DocumentSpan]) -> Vec<Sequence> {
        let groups = spans.iter().zip(0..);
        groups.flat_map(|(span, group)| self.data.sequences(*span, self.prefix, group)).collect()
    }
}

/// Returns the indices of the rows that make up the worst micro-batch of at most `most` positions and `rows` rows, given the
/// rows' `sizes` in positions: the longest one, whatever its size, then always the longest that still fits. Rows repeat only if
/// all of them fit, as in a window that is larger than the data.
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

    /// Catches a batch smaller than a run's largest micro-batch (the first rows instead of the longest, room left although a
    /// row fits, a window larger than the data), one that is larger than a window, and a skipped row that alone exceeds a
    /// micro-batch.
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
