//! How a window is cut into micro-batches and joined again, and which tokens and sequences of the window each one contains.

use crate::{
    data::{PackedBatch, Sequence, Window, pack::pack},
    error::{Error, Result},
    model::BatchView,
};

/// The range of a micro-batch in its window.
#[derive(Debug, Clone, Copy)]
pub struct MicroBatchRange {
    token: usize,
    tokens: usize,
    sequence: usize,
    sequences: usize,
}

impl MicroBatchRange {
    /// Returns the ranges of all micro-batches of a window.
    pub fn all(parts: &[PackedBatch]) -> Vec<MicroBatchRange> {
        let (mut token, mut sequence) = (0, 0);
        parts
            .iter()
            .map(|packed| {
                let part = MicroBatchRange { token, tokens: packed.len(), sequence, sequences: packed.sequences() };
                (token, sequence) = (token + part.tokens, sequence + part.sequences);
                part
            })
            .collect()
    }

    /// Returns its first token and its number of tokens.
    pub fn tokens(self) -> (usize, usize) {
        (self.token, self.tokens)
    }

    /// Returns its first sequence and its number of sequences.
    pub fn sequences(self) -> (usize, usize) {
        (self.sequence, self.sequences)
    }

    /// Returns the range of a whole window.
    pub fn whole(packed: &PackedBatch) -> MicroBatchRange {
        MicroBatchRange { token: 0, tokens: packed.len(), sequence: 0, sequences: packed.sequences() }
    }
}

/// Cuts a window into packed micro-batches.
///
/// # Errors
/// Rows that cannot be packed.
pub fn cut(window: &Window, micro_batch_tokens: usize) -> Result<Vec<PackedBatch>> {
    window.micro_batches(micro_batch_tokens).map(|b| b.map_err(Error::from)).collect()
}

/// Cuts a window of answers into packed micro-batches; the answers to a prompt stay together if `whole_groups`.
///
/// # Errors
/// Answers that cannot be packed.
pub fn cut_answers(window: &Window, micro_batch_tokens: usize, whole_groups: bool) -> Result<Vec<PackedBatch>> {
    match whole_groups {
        true => cut(window, micro_batch_tokens),
        false => window.micro_batches_apart(micro_batch_tokens).map(|b| b.map_err(Error::from)).collect(),
    }
}

/// Joins the micro-batches of a window into one packed batch.
pub fn join(parts: &[PackedBatch]) -> PackedBatch {
    let reads_last = parts.first().is_some_and(|first| first.reads_last);
    let mut whole = PackedBatch { offsets: vec![0], reads_last, ..Default::default() };
    for packed in parts {
        let start = whole.tokens.len() as i32;
        whole.tokens.extend(&packed.tokens);
        whole.targets.extend(&packed.targets);
        whole.mask.extend(&packed.mask);
        whole.positions.extend(&packed.positions);
        whole.offsets.extend(packed.offsets.iter().skip(1).map(|o| start + o));
        whole.prompts.extend(&packed.prompts);
        whole.max_len = whole.max_len.max(packed.max_len);
        whole.rows.extend(&packed.rows);
        whole.context_prompts.extend(packed.context_prompts.iter().cloned());
        for (name, values) in &packed.columns {
            whole.columns.entry(name.clone()).or_default().extend(values);
        }
        for (name, lists) in &packed.lists {
            let own = whole.lists.entry(name.clone()).or_default();
            lists.each().for_each(|values| own.push(values));
        }
        for (name, values) in &packed.per_sequence {
            whole.per_sequence.entry(name.clone()).or_default().extend(values);
        }
        for (name, values) in &packed.per_token {
            whole.per_token.entry(name.clone()).or_default().extend(values);
        }
        whole.widths.extend(packed.widths.clone());
    }
    whole
}

/// Returns the sequences of a packed batch, as they were before the shift of the targets.
pub fn unpack(packed: &PackedBatch) -> Vec<Sequence> {
    // Lists have no places of their own, so they are handed out in order.
    let mut lists: Vec<_> = packed.lists.iter().map(|(name, lists)| (name, lists.each())).collect();
    let sequence = |(index, ends): (usize, &[i32])| {
        let range = ends[0] as usize..ends[1] as usize;
        let read = range.start..range.end - usize::from(packed.reads_last);
        let tokens = packed.tokens.get(range.start).into_iter().chain(&packed.targets[read.clone()]);
        let supervised = packed.mask[read].iter().map(|m| *m != 0.0);
        let lists = lists.iter_mut().filter_map(|(name, own)| Some((name.to_string(), own.next()?.to_vec()))).collect();
        let own = |name: &str, values: &[f64]| {
            let width = packed.widths.get(name).copied().unwrap_or(1);
            values[range.start * width..range.end * width].to_vec()
        };
        Sequence {
            ids: tokens.map(|id| *id as u32).collect(),
            supervised: std::iter::once(false).chain(supervised).collect(),
            columns: packed.columns.iter().map(|(name, values)| (name.clone(), values[index])).collect(),
            lists,
            row: packed.rows[index],
            per_sequence: packed.per_sequence.iter().map(|(name, values)| (name.clone(), values[index])).collect(),
            per_token: packed.per_token.iter().map(|(name, values)| (name.clone(), own(name, values))).collect(),
            of_tokens: Default::default(),
            widths: packed.widths.clone(),
            reads_last: packed.reads_last,
            context_prompt: packed.context_prompts.get(index).cloned(),
        }
    };
    packed.offsets.windows(2).enumerate().map(sequence).collect()
}

/// Returns the same answers behind the sequences' other prompts, with the same supervised targets in the same order.
///
/// # Errors
/// Sequences without another prompt.
pub fn behind_other_prompts(packed: &PackedBatch) -> Result<PackedBatch> {
    let behind = |sequence: Sequence| {
        let row = sequence.row;
        sequence.behind_context_prompt().ok_or_else(|| Error::run(format!("row {row} has no other prompt")))
    };
    let sequences: Vec<Sequence> = unpack(packed).into_iter().map(behind).collect::<Result<_>>()?;
    Ok(pack(&sequences)?)
}

/// Returns a packed batch as the model's input.
pub fn view(packed: &PackedBatch) -> BatchView<'_> {
    BatchView {
        tokens: &packed.tokens,
        positions: &packed.positions,
        offsets: &packed.offsets,
        prompts: &packed.prompts,
    }
}

/// Returns the positions that are not the last of their sequence, given each sequence's last position: those after which
/// the target is read.
pub fn before_ends(ends: &[i32]) -> impl Iterator<Item = usize> {
    let begins = std::iter::once(0).chain(ends.iter().map(|end| *end as usize + 1));
    begins.zip(ends).flat_map(|(begin, end)| begin..*end as usize)
}

/// Returns the value that was computed after each target was read: at the next position. 0 at each sequence's last position, which
/// has no target.
pub fn after_targets(packed: &PackedBatch, values: &[f64]) -> Vec<f64> {
    let ends: Vec<i32> = packed.offsets.iter().skip(1).map(|end| end - 1).collect();
    let mut after = vec![0.0; packed.len()];
    before_ends(&ends).for_each(|n| after[n] = values[n + 1]);
    after
}

/// Returns the value at each sequence's last position.
pub fn at_ends(packed: &PackedBatch, values: &[f64]) -> Vec<f64> {
    packed.offsets.iter().skip(1).filter_map(|end| values.get(*end as usize - 1).copied()).collect()
}
