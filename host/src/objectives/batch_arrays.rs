//! Between packed batches and the named arrays that objectives read.

use std::borrow::Cow;

use plugin_api::{
    batch::{Array, Batch, Scope, names},
    manifest::DataKind,
};

use crate::{
    data::{PackedBatch, Sequence, Window},
    error::{Error, Result},
    model::{BatchView, HeadStats, Statistics},
};

/// The arrays of a batch that come from data alone.
pub fn data_arrays(packed: &PackedBatch) -> Batch<'static> {
    let floats = |values: &[i32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let mut batch = Batch::new()
        .with(names::OFFSETS, Scope::BATCH, floats(&packed.offsets))
        .with(names::TARGET, Scope::TOKEN, floats(&packed.targets))
        .with(names::MASK, Scope::TOKEN, packed.mask.clone())
        .with(names::POSITION, Scope::TOKEN, floats(&packed.positions));
    for (name, values) in &packed.columns {
        batch = batch.with(format!("{}{name}", names::COLUMN), Scope::SEQUENCE, values.clone());
    }
    for (name, values) in &packed.numbers {
        batch = batch.with(name.clone(), Scope::SEQUENCE, values.clone());
    }
    for (name, values) in &packed.per_token {
        batch = batch.with(name.clone(), Scope::TOKEN, values.clone());
    }
    batch
}

/// Sequences as the rows that `compose` reads: running text and prompts in one part each, rows of prompts and completions in
/// two, the completion from the first supervised token on; of a pair the prompt stands before either answer. `mask` tells the
/// supervised tokens within a part.
pub fn rows_of(sequences: &[Sequence], kind: &DataKind) -> Batch<'static> {
    let (mut offsets, mut tokens, mut mask) = (vec![0.0], Vec::new(), Vec::new());
    let (mut parts, mut owners) = (Vec::new(), Vec::new());
    for sequence in sequences {
        let start = tokens.len();
        tokens.extend(sequence.ids.iter().map(|id| f64::from(*id)));
        mask.extend(sequence.supervised.iter().map(|s| f64::from(u8::from(*s))));
        let answer = match (kind.as_str(), sequence.numbers.get(names::SIDE)) {
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
        .with("token", Scope::TOKEN, tokens)
        .with(names::MASK, Scope::TOKEN, mask)
        .with("part", Scope::SEQUENCE, parts)
        .with("row", Scope::SEQUENCE, owners.iter().map(|s| s.row as f64).collect::<Vec<_>>());
    for name in sequences.first().into_iter().flat_map(|s| s.columns.keys()) {
        let values: Vec<f64> = owners.iter().filter_map(|s| s.columns.get(name).copied()).collect();
        batch = batch.with(format!("{}{name}", names::COLUMN), Scope::SEQUENCE, values);
    }
    batch
}

/// The sequences that `compose` answered.
///
/// # Errors
/// Arrays that are missing or of other lengths, and tokens that are no ids.
pub fn sequences_of(composed: &Batch<'_>) -> Result<Vec<Sequence>> {
    composed.check()?;
    let (offsets, tokens, mask) = (composed.offsets()?, composed.get("token")?, composed.mask()?);
    let rows = composed.get("row")?;
    let ids: Vec<u32> = tokens
        .iter()
        .map(|t| (t.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(t)).then_some(*t as u32))
        .collect::<Option<_>>()
        .ok_or_else(|| Error::run("`compose` answered a token that is no id"))?;
    let columns: Vec<(String, &[f64])> = composed
        .arrays()
        .iter()
        .filter(|a| a.scope == Scope::SEQUENCE && a.cols == 1)
        .filter_map(|a| Some((a.name.strip_prefix(names::COLUMN)?.to_owned(), a.data.as_ref())))
        .collect();
    let numbers: Vec<(&str, &[f64])> = [names::GROUP, names::SIDE]
        .into_iter()
        .filter_map(|name| Some((name, composed.find(name)?.data.as_ref())))
        .collect();
    let sequence = |(index, ends): (usize, &[usize])| Sequence {
        ids: ids[ends[0]..ends[1]].to_vec(),
        supervised: mask[ends[0]..ends[1]].iter().map(|m| *m != 0.0).collect(),
        columns: columns.iter().map(|(name, values)| (name.clone(), values[index])).collect(),
        row: rows[index] as u64,
        numbers: numbers.iter().map(|(name, values)| ((*name).to_owned(), values[index])).collect(),
        ..Default::default()
    };
    Ok(offsets.windows(2).enumerate().map(sequence).collect())
}

/// The sequences of a packed batch, as they were before the shift.
pub fn unpack(packed: &PackedBatch) -> Vec<Sequence> {
    let sequence = |(index, ends): (usize, &[i32])| {
        let range = ends[0] as usize..ends[1] as usize;
        let read = range.start..range.end - usize::from(packed.reads_last);
        let tokens = packed.tokens.get(range.start).into_iter().chain(&packed.targets[read.clone()]);
        let supervised = packed.mask[read].iter().map(|m| *m != 0.0);
        let own = |values: &[f64]| values[range.clone()].to_vec();
        Sequence {
            ids: tokens.map(|id| *id as u32).collect(),
            supervised: std::iter::once(false).chain(supervised).collect(),
            columns: packed.columns.iter().map(|(name, values)| (name.clone(), values[index])).collect(),
            row: packed.rows[index],
            numbers: packed.numbers.iter().map(|(name, values)| (name.clone(), values[index])).collect(),
            tokens: packed.per_token.iter().map(|(name, values)| (name.clone(), own(values))).collect(),
            reads_last: packed.reads_last,
        }
    };
    packed.offsets.windows(2).enumerate().map(sequence).collect()
}

/// Tokens that pass the head: the supervised ones.
pub fn supervised_rows(packed: &PackedBatch) -> Vec<i32> {
    packed.mask.iter().enumerate().filter(|(_, m)| **m != 0.0).map(|(n, _)| n as i32).collect()
}

/// Numbers of the tokens `rows` among all `n`; the others get 0.
pub fn spread(n: usize, rows: &[i32], values: &[f64]) -> Vec<f64> {
    let mut all = vec![0.0; n];
    for (row, value) in rows.iter().zip(values) {
        all[*row as usize] = *value;
    }
    all
}

/// A batch's data with the statistics of its supervised tokens; the others get 0.
pub fn with_statistics(
    packed: &PackedBatch,
    rows: &[i32],
    wanted: Statistics,
    stats: Option<&HeadStats>,
) -> Result<Batch<'static>> {
    let n = packed.len();
    let spread = |values: Option<&Vec<f64>>| spread(n, rows, values.map_or(&[], Vec::as_slice));
    let mut batch = data_arrays(packed).with_statistic("logp", Scope::TOKEN, spread(stats.map(|s| &s.logp)));
    let optional = [
        ("lse", wanted.lse, stats.and_then(|s| s.lse.as_ref())),
        ("entropy", wanted.entropy, stats.and_then(|s| s.entropy.as_ref())),
        ("mean_logit", wanted.mean_logit, stats.and_then(|s| s.mean_logit.as_ref())),
    ];
    for (name, wanted, values) in optional {
        if wanted {
            batch = batch.with_statistic(name, Scope::TOKEN, spread(values));
        }
    }
    if let Some(top1) = stats.and_then(|s| s.top1.as_ref()) {
        let mut hits = vec![0.0; n];
        for (row, id) in rows.iter().zip(top1) {
            hits[*row as usize] = f64::from(u8::from(packed.targets[*row as usize] == *id));
        }
        batch = batch.with("top1", Scope::TOKEN, hits);
    }
    batch.check()?;
    Ok(batch)
}

/// Where a micro-batch lies in its window.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    token: usize,
    tokens: usize,
    sequence: usize,
    sequences: usize,
}

impl Part {
    /// The places of all micro-batches of a window.
    pub fn all(parts: &[PackedBatch]) -> Vec<Part> {
        let (mut token, mut sequence) = (0, 0);
        parts
            .iter()
            .map(|packed| {
                let part = Part { token, tokens: packed.len(), sequence, sequences: packed.sequences() };
                (token, sequence) = (token + part.tokens, sequence + part.sequences);
                part
            })
            .collect()
    }

    /// Its first token and how many it has.
    pub fn tokens(self) -> (usize, usize) {
        (self.token, self.tokens)
    }

    /// Its first sequence and how many it has.
    pub fn sequences(self) -> (usize, usize) {
        (self.sequence, self.sequences)
    }

    /// All of a window.
    pub fn whole(packed: &PackedBatch) -> Part {
        Part { token: 0, tokens: packed.len(), sequence: 0, sequences: packed.sequences() }
    }
}

/// What each objective's `prepare` answered over the window.
#[derive(Debug, Clone, Default)]
pub struct Joined(Vec<Batch<'static>>);

impl FromIterator<Batch<'static>> for Joined {
    fn from_iter<T: IntoIterator<Item = Batch<'static>>>(answers: T) -> Self {
        Joined(answers.into_iter().collect())
    }
}

impl Joined {
    /// A micro-batch with what joins it.
    pub fn with<'a>(&self, index: usize, batch: &'a Batch<'a>, part: Part) -> Cow<'a, Batch<'a>> {
        let Some(own) = self.0.get(index).filter(|own| !own.arrays().is_empty()) else { return Cow::Borrowed(batch) };
        let mut all = batch.clone();
        for array in own.arrays() {
            let (first, rows) = match array.scope {
                Scope::TOKEN => (part.token, part.tokens),
                Scope::SEQUENCE => (part.sequence, part.sequences),
                _ => (0, array.rows()),
            };
            let data: Vec<f64> = array.data.iter().skip(first * array.cols).take(rows * array.cols).copied().collect();
            all = all.with_array(Array { data: data.into(), ..array.clone() });
        }
        Cow::Owned(all)
    }
}

/// The micro-batches of a window as one packed batch.
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
        whole.max_len = whole.max_len.max(packed.max_len);
        whole.rows.extend(&packed.rows);
        for (name, values) in &packed.columns {
            whole.columns.entry(name.clone()).or_default().extend(values);
        }
        for (name, values) in &packed.numbers {
            whole.numbers.entry(name.clone()).or_default().extend(values);
        }
        for (name, values) in &packed.per_token {
            whole.per_token.entry(name.clone()).or_default().extend(values);
        }
    }
    whole
}

/// The micro-batches of a window, packed.
///
/// # Errors
/// Rows that cannot be packed.
pub fn cut(window: &Window, micro_batch_tokens: usize) -> Result<Vec<PackedBatch>> {
    window.micro_batches(micro_batch_tokens).map(|b| b.map_err(Error::from)).collect()
}

/// A packed batch as the model takes it.
pub fn view(packed: &PackedBatch) -> BatchView<'_> {
    BatchView { tokens: &packed.tokens, positions: &packed.positions, offsets: &packed.offsets }
}

/// Returns the value at each sequence's last position.
pub fn at_ends(packed: &PackedBatch, values: &[f64]) -> Vec<f64> {
    packed.offsets.iter().skip(1).filter_map(|end| values.get(*end as usize - 1).copied()).collect()
}

/// The arrays of the parts end to end; offsets are those of the whole.
pub fn join_batches(parts: &[Batch<'_>], whole: &PackedBatch) -> Batch<'static> {
    let Some(first) = parts.first() else { return Batch::new() };
    first.arrays().iter().fold(Batch::new(), |batch, array| {
        let mut joined = Array {
            name: array.name.to_string().into(),
            scope: array.scope,
            differentiable: array.differentiable,
            cols: array.cols,
            data: Vec::new().into(),
        };
        joined.data = if array.name == names::OFFSETS {
            whole.offsets.iter().map(|o| f64::from(*o)).collect::<Vec<_>>().into()
        } else {
            let same = parts.iter().filter_map(|p| p.find(&array.name));
            same.flat_map(|a| a.data.iter().copied()).collect::<Vec<_>>().into()
        };
        debug_assert!(array.scope != Scope::BATCH || array.name == names::OFFSETS);
        batch.with_array(joined)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pack::pack;

    fn packed(lengths: &[i32]) -> PackedBatch {
        let mut batch = PackedBatch { offsets: vec![0], ..Default::default() };
        for (row, length) in lengths.iter().enumerate() {
            batch.tokens.extend(0..*length);
            batch.targets.extend(1..=*length);
            batch.positions.extend(0..*length);
            batch.mask.extend((0..*length).map(|n| f64::from(u8::from(n % 2 == 0))));
            batch.offsets.push(batch.tokens.len() as i32);
            batch.rows.push(row as u64);
        }
        batch
    }

    /// Catches a cut that gives every micro-batch the window's first rows, or counts tokens where sequences are meant.
    #[test]
    fn what_prepare_answers_is_cut_like_the_window() {
        let parts = [packed(&[2, 3]), packed(&[4])];
        let whole = join(&parts);
        assert_eq!(whole.offsets, [0, 2, 5, 9]);
        let answer = Batch::new()
            .with("advantage", Scope::TOKEN, (0..9).map(f64::from).collect::<Vec<_>>())
            .with("reward", Scope::SEQUENCE, vec![10.0, 20.0, 30.0])
            .with("spread", Scope::BATCH, vec![7.0]);
        let joined: Joined = [answer].into_iter().collect();
        let places = Part::all(&parts);
        let expected = [(vec![0.0, 1.0, 2.0, 3.0, 4.0], vec![10.0, 20.0]), (vec![5.0, 6.0, 7.0, 8.0], vec![30.0])];
        for ((packed, place), (advantage, reward)) in parts.iter().zip(places).zip(expected) {
            let data = data_arrays(packed);
            let batch = joined.with(0, &data, place);
            assert_eq!(batch.get("advantage").ok(), Some(advantage.as_slice()));
            assert_eq!(batch.get("reward").ok(), Some(reward.as_slice()));
            assert_eq!(batch.get("spread").ok(), Some([7.0].as_slice()));
            assert!(batch.check().is_ok());
        }
    }

    /// Catches an unpacking that loses the last target, and rows or masks that move against their tokens.
    #[test]
    fn sequences_survive_packing_and_the_way_through_compose() {
        let packed = packed(&[3, 2]);
        let sequences = unpack(&packed);
        assert_eq!(crate::data::pack::pack(&sequences).unwrap(), PackedBatch { max_len: 3, ..packed });
        let masks = sequences.iter().flat_map(|s| s.supervised.iter().map(|m| f64::from(u8::from(*m))));
        let answer = rows_of(&sequences, &DataKind::TEXT).with(names::MASK, Scope::TOKEN, masks.collect::<Vec<_>>());
        assert_eq!(sequences_of(&answer).unwrap(), sequences);
        assert!(sequences_of(&answer.with("token", Scope::TOKEN, vec![0.5; 7])).is_err());
    }

    /// Catches prompts and completions handed over as one text, and columns or rows that belong to one part alone.
    #[test]
    fn compose_reads_prompts_and_completions_apart() {
        let sequence = |row, supervised: &[bool]| Sequence {
            ids: (0..supervised.len() as u32).collect(),
            supervised: supervised.to_vec(),
            columns: [("m".to_owned(), row as f64)].into(),
            row,
            ..Default::default()
        };
        let sequences = [sequence(4, &[false, false, true]), sequence(7, &[false, true, false, true])];
        let rows = rows_of(&sequences, &DataKind::PROMPT_COMPLETION);
        assert!(rows.check().is_ok());
        assert_eq!(rows.offsets().unwrap(), [0, 2, 3, 4, 7]);
        assert_eq!(rows.get("part").unwrap(), [1.0, 2.0, 1.0, 2.0]);
        assert_eq!(rows.get("row").unwrap(), [4.0, 4.0, 7.0, 7.0]);
        assert_eq!(rows.mask().unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(rows.column("m").unwrap(), [4.0, 4.0, 7.0, 7.0]);
    }

    /// Gotcha 2: only supervised tokens pass the head, and their statistics come back to their own places.
    #[test]
    fn gotcha_02_statistics_return_to_the_tokens_they_belong_to() {
        let packed = packed(&[3, 2]);
        let rows = supervised_rows(&packed);
        assert_eq!(rows, [0, 2, 3]);
        let stats = HeadStats { logp: vec![-1.0, -2.0, -3.0], top1: Some(vec![1, 9, 1]), ..Default::default() };
        let batch = with_statistics(&packed, &rows, Statistics::default(), Some(&stats)).unwrap();
        assert_eq!(batch.get("logp").unwrap(), [-1.0, 0.0, -2.0, -3.0, 0.0]);
        assert_eq!(batch.get("top1").unwrap(), [1.0, 0.0, 0.0, 1.0, 0.0]);
    }

    /// Catches a score that is read one position off, at the longest sequence's end, or of the next sequence.
    #[test]
    fn gotcha_13_29_scores_are_read_at_each_sequences_own_last_token() {
        let sequence = |length: usize, reads_last| Sequence {
            ids: (0..length as u32).collect(),
            supervised: vec![true; length],
            reads_last,
            ..Default::default()
        };
        let values: Vec<f64> = (0..9).map(f64::from).collect();
        let packed = pack(&[sequence(2, true), sequence(4, true), sequence(3, true)]).unwrap();
        assert_eq!(at_ends(&packed, &values), [1.0, 5.0, 8.0]);
        assert_eq!(packed.tokens[5], 3, "the last token is read");
        // Without anything asked there, the last token is a target alone.
        let packed = pack(&[sequence(3, false), sequence(2, false)]).unwrap();
        assert_eq!(at_ends(&packed, &values), [1.0, 2.0]);
    }
}
