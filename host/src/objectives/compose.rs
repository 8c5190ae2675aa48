//! The call `compose`: the rows that it reads, and the sequences that it returns.

use plugin_api::{
    batch::{Array, Batch, Scope, names},
    contract::{self, Limits},
    manifest::DataKind,
};

use super::{
    Objectives,
    active::{broken, failed},
};
use crate::{
    data::{Sequence, Window, pack::Lists},
    error::{Error, Result},
    runs::breadcrumb::CrashMarker,
};

impl Objectives {
    /// Returns the window with the sequences that an objective composes from its rows; unchanged if no objective composes.
    ///
    /// # Errors
    /// Errors of plugins, with the plugin's name; an objective that composes although it is not the only one, since all
    /// objectives share the data.
    pub fn compose(&self, window: Window, seed: u64, marker: &CrashMarker) -> Result<Window> {
        let mut composed = None;
        for active in &self.0 {
            marker.objective(&active.id, "compose");
            let rows = rows_of(window.sequences(), &active.manifest.data, self.2.longest);
            let composed_now = active.instance.compose(&rows, seed).map_err(|e| failed(&active.id, "compose", e))?;
            marker.host();
            let Some(batch) = composed_now else {
                if active.requirements.composed_candidates().is_some() {
                    return Err(Error::run(format!(
                        "objective \"{}\", call `compose`: it returned no sequences, but its requirements name candidates from \
                         `compose`, which come with them",
                        active.id
                    )));
                }
                continue;
            };
            if self.0.len() > 1 {
                return Err(Error::request(format!(
                    "objective \"{}\" composes its own sequences, which is only possible if it is the only objective",
                    active.id
                )));
            }
            if self.needs().context {
                return Err(Error::request(format!(
                    "objective \"{}\" composes its own sequences, which have no other prompt to read `context` behind",
                    active.id
                )));
            }
            let limits = Limits { candidates: active.requirements.composed_candidates(), ..self.2 };
            contract::composed(&rows, &batch, limits).map_err(|why| {
                let rows = batch.get("row").unwrap_or_default().iter().map(|row| *row as u64).collect::<Vec<_>>();
                broken(&active.id, "compose", why, &rows)
            })?;
            let window = Window::new(sequences_of(&batch)?);
            composed = Some(
                window.map_err(|e| Error::from(e).context(format!("objective \"{}\", call `compose`", active.id)))?,
            );
        }
        self.with_last_read(composed.unwrap_or(window))
    }

    /// Sets `reads_last` on every sequence of the window if an objective needs it. Composed sequences do not have it set.
    fn with_last_read(&self, window: Window) -> Result<Window> {
        if !self.needs().reads_last() || window.sequences().iter().all(|sequence| sequence.reads_last) {
            return Ok(window);
        }
        let mut sequences = window.sequences().to_vec();
        sequences.iter_mut().for_each(|sequence| sequence.reads_last = true);
        Ok(Window::new(sequences)?)
    }
}

/// Returns sequences as the rows that `compose` reads. Running text and prompts have one part each; rows of prompts and
/// completions have two, and the completion begins at the first supervised token; for pairs, each answer has its own copy of
/// the prompt. `mask` marks the supervised tokens within a part.
pub fn rows_of(sequences: &[Sequence], kind: &DataKind, longest: usize) -> Batch<'static> {
    let (mut offsets, mut tokens, mut mask) = (vec![0.0], Vec::new(), Vec::new());
    let (mut parts, mut owners) = (Vec::new(), Vec::new());
    for sequence in sequences {
        let start = tokens.len();
        tokens.extend(sequence.ids.iter().map(|id| f64::from(*id)));
        mask.extend(sequence.supervised.iter().map(|s| f64::from(u8::from(*s))));
        let answer = match (kind.as_str(), sequence.per_sequence.get(names::SIDE)) {
            ("prompt-completion" | "unpaired", _) => Some(2.0),
            ("preference", Some(side)) => Some(if *side > 0.0 { 3.0 } else { 4.0 }),
            _ => None,
        };
        if let Some(answer) = answer {
            let prompt = sequence.supervised.iter().position(|s| *s).unwrap_or(sequence.ids.len());
            offsets.push((start + prompt) as f64);
            parts.extend([1.0, answer]);
            owners.extend([sequence, sequence]);
        } else {
            parts.push(f64::from(u8::from(*kind == DataKind::PROMPT)));
            owners.push(sequence);
        }
        offsets.push(tokens.len() as f64);
    }
    let mut batch = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, offsets)
        .with(names::LONGEST, Scope::BATCH, vec![longest as f64])
        .with("token", Scope::TOKEN, tokens)
        .with(names::MASK, Scope::TOKEN, mask)
        .with("part", Scope::SEQUENCE, parts)
        .with("row", Scope::SEQUENCE, owners.iter().map(|s| s.row as f64).collect::<Vec<_>>());
    if sequences.iter().any(|sequence| sequence.of_tokens.contains_key(names::SEGMENT_END)) {
        let ends = sequences.iter().filter_map(|sequence| sequence.of_tokens.get(names::SEGMENT_END));
        batch = batch.with(names::SEGMENT_END, Scope::TOKEN, ends.flatten().copied().collect::<Vec<_>>());
    }
    for name in sequences.first().into_iter().flat_map(|s| s.lists.keys()) {
        let lists: Vec<&[f64]> = owners.iter().filter_map(|s| s.lists.get(name).map(Vec::as_slice)).collect();
        let (column, lengths) = (format!("{}{name}", names::COLUMN), lists.iter().map(|list| list.len() as f64));
        batch = batch.with(format!("{column}{}", names::LENGTH), Scope::SEQUENCE, lengths.collect::<Vec<_>>());
        batch = batch.with(column, Scope::LIST, lists.concat());
    }
    for name in sequences.first().into_iter().flat_map(|s| s.columns.keys()) {
        let values: Vec<f64> = owners.iter().filter_map(|s| s.columns.get(name).copied()).collect();
        batch = batch.with(format!("{}{name}", names::COLUMN), Scope::SEQUENCE, values);
    }
    batch
}

/// Whether an array is the lengths of a list, and not a column of its own.
fn is_length(batch: &Batch<'_>, name: &str) -> bool {
    let list = name.strip_suffix(names::LENGTH).and_then(|list| batch.find(list));
    list.is_some_and(|list| list.scope == Scope::LIST)
}

/// Returns the sequences that `compose` returned as arrays, with the arrays that the objective added. Those per token are still aligned
/// to their tokens; packing shifts them.
///
/// # Errors
/// Arrays that are missing or of other lengths, and tokens that are not ids.
pub fn sequences_of(composed: &Batch<'_>) -> Result<Vec<Sequence>> {
    composed.check()?;
    let (offsets, tokens, mask) = (composed.offsets()?, composed.get("token")?, composed.mask()?);
    let rows = composed.get("row")?;
    let ids: Vec<u32> = tokens
        .iter()
        .map(|t| (t.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(t)).then_some(*t as u32))
        .collect::<Option<_>>()
        .ok_or_else(|| Error::run("`compose` returned a token that is not a token id"))?;
    let columns: Vec<(String, &[f64])> = composed
        .arrays()
        .iter()
        .filter(|a| a.scope == Scope::SEQUENCE && a.cols == 1 && !is_length(composed, &a.name))
        .filter_map(|a| Some((a.name.strip_prefix(names::COLUMN)?.to_owned(), a.data.as_ref())))
        .collect();
    let mut lists: Vec<(String, Lists)> = Vec::new();
    for array in composed.arrays().iter().filter(|a| a.scope == Scope::LIST) {
        if let Some(name) = array.name.strip_prefix(names::COLUMN) {
            let own = Lists { values: array.data.to_vec(), lengths: composed.lengths(&array.name)? };
            lists.push((name.to_owned(), own));
        }
    }
    let mut lists: Vec<_> = lists.iter().map(|(name, lists)| (name, lists.each())).collect();
    let is_own = |array: &Array<'_>| {
        !["row", "part", "token", names::MASK].contains(&array.name.as_ref()) && !array.name.starts_with(names::COLUMN)
    };
    let of = |scope| composed.arrays().iter().filter(move |array| array.scope == scope && is_own(array));
    let (numbers, of_tokens): (Vec<_>, Vec<_>) = (of(Scope::SEQUENCE).collect(), of(Scope::TOKEN).collect());
    let sequence = |(index, ends): (usize, &[usize])| Sequence {
        ids: ids[ends[0]..ends[1]].to_vec(),
        supervised: mask[ends[0]..ends[1]].iter().map(|m| *m != 0.0).collect(),
        columns: columns.iter().map(|(name, values)| (name.clone(), values[index])).collect(),
        lists: lists.iter_mut().filter_map(|(name, own)| Some((name.clone(), own.next()?.to_vec()))).collect(),
        row: rows[index] as u64,
        per_sequence: numbers.iter().map(|array| (array.name.to_string(), array.data[index])).collect(),
        of_tokens: of_tokens
            .iter()
            .map(|array| (array.name.to_string(), array.data[ends[0] * array.cols..ends[1] * array.cols].to_vec()))
            .collect(),
        widths: of_tokens.iter().filter(|a| a.cols > 1).map(|a| (a.name.to_string(), a.cols)).collect(),
        ..Default::default()
    };
    Ok(offsets.windows(2).enumerate().map(sequence).collect())
}
