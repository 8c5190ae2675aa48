//! What is computed for a whole rollout before it is split into steps: the models' statistics and each objective's `prepare`, whose
//! results are stored with the sequences.

use std::collections::BTreeSet;

use plugin_api::{
    Code,
    batch::{Batch, Scope, names},
    contract,
};

use crate::{
    data::{Sequence, pack},
    error::{Error, Result},
    model::Keep,
    objectives::{
        Objectives,
        active::{broken, failed},
        batch_arrays::{append, join_batches, select},
        micro_batch::join,
    },
    runs::breadcrumb::CrashMarker,
    train::step::{forward::ForwardPass, models::Models},
};

/// Answers with the statistics of all models.
#[derive(Default)]
pub(super) struct Measured {
    sequences: Vec<Sequence>,
    batch: Batch<'static>,
}

/// What the objectives' `prepare` returned for answers.
pub(super) struct Prepared {
    arrays: Vec<(String, Batch<'static>)>,
    /// For each answer, whether the objectives keep it.
    pub(super) keep: Vec<bool>,
    /// How many more prompts they request.
    pub(super) request: u64,
    /// Those that do not keep every answer.
    pub(super) droppers: Vec<String>,
    /// Whether any of them returned `keep` or `request`.
    pub(super) selects: bool,
}

impl Measured {
    /// Adds answers of the same rollout.
    ///
    /// # Errors
    /// Arrays that only one of them has.
    pub(super) fn add(&mut self, more: Measured) -> Result<()> {
        self.batch = match self.sequences.is_empty() {
            true => more.batch,
            false => append(&self.batch, &more.batch)?,
        };
        self.sequences.extend(more.sequences);
        Ok(())
    }

    /// Drops the answers to prompts of which `keep` is false for all answers. The other prompts keep all of theirs, so that the
    /// statistics of their groups stay the same.
    ///
    /// # Errors
    /// A batch without offsets.
    pub(super) fn keep_groups(&mut self, keep: &[bool]) -> Result<()> {
        let keep = with_whole_groups(&self.sequences, keep);
        if keep.contains(&false) {
            self.batch = select(&self.batch, &keep)?;
            retain(&mut self.sequences, &keep);
        }
        Ok(())
    }

    /// Returns the kept answers, each with its part of all arrays.
    ///
    /// # Errors
    /// Arrays that cannot be cut into steps.
    pub(super) fn finish(self, prepared: Prepared) -> Result<Vec<Sequence>> {
        let Measured { mut sequences, batch } = self;
        if let Some(reference) = batch.find(names::REFERENCE_LOGP) {
            let own = Batch::new().with(names::REFERENCE_LOGP, Scope::TOKEN, reference.data.to_vec());
            attach(&mut sequences, &own, &[])?;
        }
        for (id, arrays) in &prepared.arrays {
            let attached = attach(&mut sequences, arrays, &[names::KEEP, names::REQUEST]);
            attached.map_err(|e| e.context(format!("objective \"{id}\"")))?;
        }
        retain(&mut sequences, &prepared.keep);
        Ok(sequences)
    }
}

/// Returns `keep`, true for all answers to a prompt if it is true for one of them.
fn with_whole_groups(sequences: &[Sequence], keep: &[bool]) -> Vec<bool> {
    let group = |sequence: &Sequence| sequence.per_sequence.get(names::GROUP).map(|group| group.to_bits());
    let kept: BTreeSet<Option<u64>> =
        sequences.iter().zip(keep).filter(|(_, keep)| **keep).map(|(sequence, _)| group(sequence)).collect();
    sequences.iter().map(|sequence| kept.contains(&group(sequence))).collect()
}

fn retain(sequences: &mut Vec<Sequence>, keep: &[bool]) {
    let mut kept = keep.iter();
    sequences.retain(|_| *kept.next().unwrap_or(&true));
}

/// Computes the models' statistics over answers, at most `tokens` positions at a time.
///
/// # Errors
/// Errors of the backend.
pub(super) fn statistics(
    sequences: Vec<Sequence>,
    models: Models<'_>,
    objectives: &Objectives,
    tokens: usize,
) -> Result<Measured> {
    let pass = ForwardPass { models, objectives };
    let (mut packed, mut batches) = (Vec::new(), Vec::new());
    // As training cuts them, so that both need the same memory.
    let ranges = match objectives.whole_groups() {
        true => pack::micro_batches(&sequences, tokens),
        false => pack::micro_batches_apart(&sequences, tokens),
    };
    for range in ranges {
        let part = pack::pack(&sequences[range])?;
        batches.push(pass.run(&part, Keep::Nothing)?.batch);
        packed.push(part);
    }
    let batch = join_batches(&batches, &join(&packed));
    Ok(Measured { sequences, batch })
}

/// Calls each objective's `prepare` with the answers and their statistics.
///
/// # Errors
/// Errors of plugins; two objectives that return the same array.
pub(super) fn prepare(measured: &Measured, objectives: &mut Objectives, marker: &CrashMarker) -> Result<Prepared> {
    let Measured { sequences, batch } = measured;
    let whole = &objectives.given_whole(batch);
    let keep = vec![true; sequences.len()];
    let mut prepared = Prepared { arrays: Vec::new(), keep, request: 0, droppers: Vec::new(), selects: false };
    for active in objectives.iter_mut() {
        marker.objective(&active.id, "prepare");
        let answer = active.instance.prepare(whole).map_err(|e| failed(&active.id, "prepare", e))?;
        marker.host();
        contract::prepared(whole, &answer, true).map_err(|why| {
            let rows: Vec<u64> = sequences.iter().map(|sequence| sequence.row).collect();
            broken(&active.id, "prepare", why, &rows)
        })?;
        let answer = without_hidden(answer, whole.mask()?);
        let is_shared = |name: &str| [names::KEEP, names::REQUEST].contains(&name);
        for array in answer.arrays().iter().filter(|array| !is_shared(&array.name)) {
            let of = |(id, arrays): &(String, Batch<'_>)| arrays.find(&array.name).map(|_| id.clone());
            if let Some(first) = prepared.arrays.iter().find_map(of) {
                let (name, second) = (&array.name, &active.id);
                let both = format!("the objectives \"{first}\" and \"{second}\" both return `{name}` for a rollout");
                return Err(Error::request(both).with_hint("use only one of them with rollouts"));
            }
        }
        if let Some(kept) = answer.find(names::KEEP) {
            prepared.keep.iter_mut().zip(kept.data.iter()).for_each(|(all, own)| *all &= *own != 0.0);
            prepared.droppers.extend(kept.data.contains(&0.0).then(|| active.id.clone()));
        }
        if !active.requirements.requests && answer.find(names::REQUEST).is_some() {
            let why = "it returned `request`, but its requirements say that it does not";
            return Err(failed(&active.id, "prepare", plugin_api::Error::new(Code::ARRAY, why)));
        }
        let request = answer.find(names::REQUEST).and_then(|array| array.data.first().copied());
        prepared.request = prepared.request.max(request.unwrap_or(0.0) as u64);
        prepared.selects |= answer.arrays().iter().any(|array| is_shared(&array.name));
        prepared.arrays.push((active.id.clone(), answer));
    }
    Ok(prepared)
}

/// Sets values to 0 where the mask is 0 and the value is not finite: they are never read, and a checkpoint, which is JSON,
/// cannot store them.
fn without_hidden(mut arrays: Batch<'static>, mask: &[f64]) -> Batch<'static> {
    let hidden = |(value, mask): (&f64, &f64)| *mask == 0.0 && !value.is_finite();
    for array in arrays.arrays().to_vec() {
        if array.scope == Scope::TOKEN && array.data.iter().zip(mask).any(hidden) {
            let shown = array.data.iter().zip(mask).map(|pair| if hidden(pair) { 0.0 } else { *pair.0 });
            arrays = arrays.with(array.name, Scope::TOKEN, shown.collect::<Vec<f64>>());
        }
    }
    arrays
}

/// Stores in every sequence its part of the arrays, except those named in `but`.
fn attach(sequences: &mut [Sequence], arrays: &Batch<'_>, but: &[&str]) -> Result<()> {
    let (count, positions) = (sequences.len(), sequences.iter().map(Sequence::positions).sum::<usize>());
    for array in arrays.arrays().iter().filter(|array| !but.contains(&array.name.as_ref())) {
        let refuse = |what: String| Err(Error::run(format!("`prepare` returned `{}` {what}", array.name)));
        let name = array.name.to_string();
        match array.scope {
            _ if array.cols != 1 => return refuse(format!("with {} columns, expected one in rollouts", array.cols)),
            Scope::SEQUENCE if array.data.len() == count => {
                for (sequence, value) in sequences.iter_mut().zip(array.data.iter()) {
                    sequence.per_sequence.insert(name.clone(), *value);
                }
            }
            Scope::TOKEN if array.data.len() == positions => {
                let mut rest = array.data.as_ref();
                for sequence in sequences.iter_mut() {
                    let (own, after) = rest.split_at(sequence.positions());
                    rest = after;
                    sequence.per_token.insert(name.clone(), own.to_vec());
                }
            }
            Scope::SEQUENCE | Scope::TOKEN => {
                return refuse(format!("with {} values for {count} sequences of {positions} tokens", array.data.len()));
            }
            _ => {
                return refuse(
                    "per rollout, expected per token or per sequence: only those can be cut into steps".to_owned(),
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(row: u64, length: usize) -> Sequence {
        Sequence { ids: vec![1; length], supervised: vec![true; length], row, reads_last: true, ..Default::default() }
    }

    /// Catches a group that loses an answer between two calls of `prepare`, so that its mean reward changes.
    #[test]
    fn a_prompt_with_a_kept_answer_keeps_all_of_its_answers() {
        let grouped = |group: f64| Sequence {
            per_sequence: [(names::GROUP.to_owned(), group)].into(),
            ..sequence(group as u64, 2)
        };
        let answers = [0.0, 0.0, 1.0, 1.0].map(grouped);
        assert_eq!(with_whole_groups(&answers, &[false, true, false, false]), [true, true, false, false]);
    }

    /// Catches values that are stored with other answers than their own.
    #[test]
    fn arrays_of_prepare_are_stored_with_their_own_sequences() {
        let mut sequences = [sequence(0, 2), sequence(1, 3)];
        let arrays = Batch::new().with("advantage", Scope::TOKEN, vec![1.0, 2.0, 3.0, 4.0, 5.0]).with(
            "length",
            Scope::SEQUENCE,
            vec![7.0, 8.0],
        );
        attach(&mut sequences, &arrays, &[]).unwrap();
        assert_eq!(sequences[1].per_token["advantage"], [3.0, 4.0, 5.0]);
        assert_eq!(sequences[1].per_sequence["length"], 8.0);
        for bad in [
            Batch::new().with("a", Scope::TOKEN, vec![1.0; 4]),
            Batch::new().with("a", Scope::SEQUENCE, vec![1.0; 3]),
            Batch::new().with("a", Scope::BATCH, vec![1.0]),
        ] {
            assert!(attach(&mut sequences, &bad, &[]).is_err());
        }
    }
}
