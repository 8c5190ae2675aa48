//! The worst micro-batch of an experiment, tried before step 1, so that memory runs out there or never.
//!
//! It is a real batch: the longest rows that the data has, with every array that batches carry, through the objectives' `compose`,
//! `prepare` and `loss`, and back with the cotangents that they return. Prompts get made-up answers of the longest length. The
//! states of the objectives are put back; no place in the data order and no random number is used up.

use std::cmp::Reverse;

use crate::{
    config::experiment::Batch,
    data::{Batcher, Examples, PackedBatch, Sequence, Window, order::Stretch},
    error::{Error, Result},
    generate,
    objectives::{Objectives, batch_arrays::cut},
    runs::breadcrumb::CrashMarker,
    setup::Prepared,
    train::{
        learner::Learner,
        rollout::Models,
        step::gradient::{Work, accumulate},
    },
};

/// Minimum number of positions per forward-only pass, even if a step has fewer: without a backward pass they take little memory.
const LEAST_FORWARD: usize = 1024;

impl Learner {
    /// Computes the worst micro-batch forward and backward. The gradients are undefined afterwards.
    ///
    /// # Errors
    /// The plugins' and the backend's own, headed by the plugin and its call; lack of memory, headed by its purpose.
    pub fn try_worst_batch(&mut self, marker: &CrashMarker) -> Result<()> {
        let tried = self.hold_generation(marker).and_then(|()| self.try_all(self.settings.micro_batch_tokens, marker));
        tried.map_err(headed)?;
        marker.host();
        Ok(())
    }

    /// Computes a batch of the longest rows, forward and backward: at most `most` positions, or one row if it is longer. Returns its
    /// number of positions. The gradients are undefined afterwards.
    ///
    /// # Errors
    /// As [`Learner::try_worst_batch`].
    pub fn try_batch(&mut self, most: usize, marker: &CrashMarker) -> Result<usize> {
        let most = most.min(self.settings.micro_batch_tokens);
        let positions = self.try_all(most, marker).map_err(headed)?;
        marker.host();
        Ok(positions)
    }

    fn try_all(&mut self, most: usize, marker: &CrashMarker) -> Result<usize> {
        marker.host();
        let states = self.objectives.states()?;
        let micro_batches = self.worst_window(most, marker)?;
        self.accumulate(&micro_batches, marker)?;
        self.objectives.put_back(states)?;
        let (model, roles, grads, recompute) = (&self.model, &self.roles, &self.grads, self.recompute);
        for beside in &mut self.beside {
            let states = beside.objectives.states()?;
            let micro_batches = beside.worst_window(most)?;
            accumulate(&Work { model, roles, recompute, grads }, &mut beside.objectives, &micro_batches, marker)?;
            beside.objectives.put_back(states)?;
        }
        Ok(micro_batches.iter().map(PackedBatch::len).sum())
    }

    /// A window with the largest possible micro-batch of at most `most` positions. It is one micro-batch, unless an objective
    /// composes longer sequences out of its rows. Changes the states of the objectives of rollouts.
    fn worst_window(&mut self, most: usize, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        if self.rollouts.is_none() {
            return self.worst_of_rows(most, marker);
        }
        let answers = self.worst_answers(most);
        let Learner { model, roles, objectives, rewards, rollouts, .. } = self;
        let Some(rollouts) = rollouts.as_ref() else { return Ok(Vec::new()) };
        marker.backend("rollout");
        let measured = rollouts.measured(answers, &mut Models { model, roles, objectives, rewards }, marker)?;
        cut(&Window::new(measured)?, most)
    }

    /// The worst micro-batch, in a window of its own, with what data and `compose` give; answers are made up and not measured.
    ///
    /// # Errors
    /// The plugins' own.
    pub fn worst_micro_batches(&self, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        let most = self.settings.micro_batch_tokens;
        match self.rollouts {
            Some(_) => cut(&Window::new(self.worst_answers(most))?, most),
            None => self.worst_of_rows(most, marker),
        }
    }

    fn worst_of_rows(&self, most: usize, marker: &CrashMarker) -> Result<Vec<PackedBatch>> {
        let reads_last = self.objectives.needs().reads_last();
        let rows = Rows::of(&self.batcher, self.longest, reads_last, self.settings.batch);
        let plain = Window::new(rows.worst(most))?;
        let positions = plain.positions();
        let compose = |window| self.objectives.compose(window, self.seed, marker).and_then(|window| self.asked(window));
        let mut window = compose(plain)?;
        if window.positions() < positions {
            // Composed sequences are shorter than their rows, so that more rows fit.
            let room = most.saturating_mul(positions) / window.positions().max(1);
            window = compose(Window::new(rows.worst(room))?)?;
        }
        cut(&window, most)
    }

    /// Made-up answers to the longest prompts, as many as one micro-batch of `most` positions holds.
    fn worst_answers(&self, most: usize) -> Vec<Sequence> {
        let Some(rollouts) = &self.rollouts else { return Vec::new() };
        let context = self.model.config().context as usize;
        let rows = Rows::of(&self.batcher, self.longest, false, self.settings.batch);
        let (chosen, _) = rows.worst_prompts(most, rollouts.samples(), rollouts.max_new_tokens(), context);
        rollouts.made_up(&rows.read(&chosen), context)
    }

    /// The token ids of the longest prompts of a rollout of `count`.
    pub fn longest_prompts(&self, count: usize) -> Vec<Vec<i32>> {
        let rows =
            Rows { batch: Batch::Prompts(count), ..Rows::of(&self.batcher, self.longest, false, self.settings.batch) };
        let ids = |prompt: Sequence| prompt.ids.iter().map(|id| *id as i32).collect();
        rows.worst(usize::MAX).into_iter().map(ids).collect()
    }

    /// Holds for a moment what a rollout's generation needs.
    fn hold_generation(&self, marker: &CrashMarker) -> Result<()> {
        let Some(rollouts) = &self.rollouts else { return Ok(()) };
        marker.backend("generation");
        let prompts = self.longest_prompts(rollouts.prompts());
        let repeated: Vec<Vec<i32>> = prompts.iter().flat_map(|ids| vec![ids.clone(); rollouts.samples()]).collect();
        generate::hold(&self.model, &repeated, rollouts.max_new_tokens())
    }
}

impl Prepared {
    /// Number of positions per pass when nothing is kept for a backward pass (held-out rows, the reference's pass over
    /// the data, the statistics of rollouts, reward models): at most `train.micro_batch_tokens`, and no more than the largest training micro-batch has or
    /// [`LEAST_FORWARD`], so that they take no more memory than training.
    pub fn forward_tokens(&self, objectives: &Objectives, train: &dyn Examples) -> usize {
        let most = self.experiment().train.micro_batch_tokens;
        let rows = Rows { batch: self.experiment().train.batch, ..self.all_rows(objectives, train) };
        let positions = match &self.experiment().rollout {
            Some(rollout) if objectives.needs().rollouts => {
                let context = self.config.context as usize;
                rows.worst_prompts(most, rollout.samples, rollout.max_new_tokens, context).1
            }
            _ => rows.worst_positions(most),
        };
        positions.max(LEAST_FORWARD).min(most)
    }

    /// Rows of `data`, all of which may be in one micro-batch.
    pub(crate) fn all_rows<'a>(&self, objectives: &Objectives, data: &'a dyn Examples) -> Rows<'a> {
        Rows {
            data,
            prefix: self.tokenizer.prefix(),
            context: self.experiment().longest_sequence(self.config.context as usize),
            reads_last: objectives.needs().reads_last(),
            batch: Batch::Sequences(usize::MAX),
        }
    }
}

/// Names what failed: the memory, or the trial in which a plugin did.
fn headed(error: Error) -> Error {
    match error.is_out_of_memory() {
        true => error.context("the largest micro-batch cannot be computed"),
        false => error.with_details(["found by the trial before step 1, in which no weight changes"]),
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
    fn worst_prompts(self, most: usize, samples: usize, answer: usize, context: usize) -> (Vec<Stretch>, usize) {
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
    fn read(self, stretches: &[Stretch]) -> Vec<Sequence> {
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
    use plugin_api::error::Code;

    /// Catches a plugin's fault that reads like memory, memory that is blamed on a plugin, and a remedy that is lost.
    #[test]
    fn a_fault_is_headed_by_what_failed() {
        let fault = headed(Error::run("kto: `loss`: no array `side`"));
        assert!(fault.report().starts_with("error: kto: `loss`: no array `side`\n  found by the trial before step 1"));
        let memory = Error::from(plugin_api::Error::new(Code::OUT_OF_MEMORY, "alloc: 9 elements of f32"));
        let report = headed(memory).report();
        assert!(report.starts_with("error: the largest micro-batch cannot be computed\n"), "{report}");
        assert!(report.contains("help: lower train.micro_batch_tokens"), "{report}");
    }

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
