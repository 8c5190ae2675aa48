//! What a frozen reference says of rows: computed once, kept on disk under the hash of everything it depends on, and handed on
//! with the rows. So a run holds one model less, and the next run over the same data computes nothing.
//!
//! The numbers belong to rows, not to places in a batch, so that they survive every shuffling. They are computed over the rows
//! in their own order, cut the same way every time, so that they are the same bits whoever computes them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_api::{batch::names, manifest::DataKind};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::{
    arrays::{rows_of, spread, supervised_rows},
    objectives::{Needs, Objectives, failed},
    pass::logps,
    roles::Roles,
    setup::Prepared,
};
use crate::{
    config::experiment::{self, SELF},
    data::{Examples, Sequence, TrainingData, cache::hex, order::Stretch, pack, rows::RowText},
    error::{Error, Result},
    model::Model,
    runs::{breadcrumb, disk::sha256_file},
};

/// Rows as the experiment's models read them: with the last token where something is asked there, and with what the reference
/// says of them.
#[derive(Debug)]
pub struct Asked {
    inner: Arc<dyn Examples>,
    reads_last: bool,
    /// By row and sequence of it, one number per position; empty where no reference is cached.
    reference: Vec<Vec<Vec<f64>>>,
}

impl Examples for Asked {
    fn key(&self) -> String {
        self.inner.key()
    }

    fn documents(&self) -> usize {
        self.inner.documents()
    }

    fn tokens(&self) -> u64 {
        self.inner.tokens()
    }

    fn epoch(&self, context: usize, prefix: bool, seed: u64, epoch: u64) -> Vec<Stretch> {
        self.inner.epoch(context, prefix, seed, epoch)
    }

    fn in_order(&self, context: usize, prefix: bool) -> Vec<Stretch> {
        self.inner.in_order(context, prefix)
    }

    fn sequences(&self, stretch: Stretch, prefix: Option<u32>, group: u64) -> Vec<Sequence> {
        let mut sequences = self.inner.sequences(stretch, prefix, group);
        let cached = self.reference.get(stretch.document as usize);
        for (index, sequence) in sequences.iter_mut().enumerate() {
            sequence.reads_last = self.reads_last;
            if let Some(values) = cached.and_then(|cached| cached.get(index)) {
                sequence.tokens.insert(names::REFERENCE_LOGP.to_owned(), values.clone());
            }
        }
        sequences
    }

    fn usual_length(&self, context: usize) -> usize {
        self.inner.usual_length(context)
    }

    fn some(&self, all: Vec<Stretch>, kept: usize) -> Vec<Stretch> {
        self.inner.some(all, kept)
    }

    fn row_text(&self, row: u64) -> Option<&RowText> {
        self.inner.row_text(row)
    }
}

impl Prepared {
    /// The data as the models read it. Where a frozen reference is asked about rows, its answers come from the cache or are
    /// computed into it, and the model goes; the note says which. Not `cached`, the model stays and is asked in every step.
    ///
    /// # Errors
    /// The backend's. A cache that cannot be read or written costs only time.
    pub fn asked(
        &self,
        data: TrainingData,
        objectives: &Objectives,
        roles: &mut Roles,
        cached: bool,
    ) -> Result<(TrainingData, Option<String>)> {
        let reads_last = objectives.needs().reads_last();
        let plain = |inner: &Arc<dyn Examples>| Asked { inner: inner.clone(), reads_last, reference: Vec::new() };
        let (mut train, mut held_out, mut note) = (plain(&data.train), plain(&data.held_out), None);
        let cacheable = if cached { self.cacheable(&data, objectives, roles)? } else { None };
        if let Some(model) = cacheable {
            let tokens = self.forward_tokens(objectives, &*data.train);
            let cache = Cache::new(self, objectives, reads_last, tokens)?;
            let (first, second) = (cache.read(&train, model)?, cache.read(&held_out, model)?);
            let how = if first.1 && second.1 { "read from" } else { "computed into" };
            note = Some(format!("the reference's log-probabilities were {how} {}", cache.folder.display()));
            (train.reference, held_out.reference) = (first.0, second.0);
            if let Some(reference) = &mut roles.reference {
                reference.model = None;
            }
        }
        Ok((TrainingData { train: Arc::new(train), held_out: Arc::new(held_out), ..data }, note))
    }

    /// The reference where what it says of the data can be known beforehand: it follows nobody, the data are rows that are read
    /// as they are, and nobody answers them anew.
    pub(super) fn cacheable<'r>(
        &self,
        data: &TrainingData,
        objectives: &Objectives,
        roles: &'r Roles,
    ) -> Result<Option<&'r Model>> {
        let frozen = roles.reference.as_ref().filter(|role| role.follow.is_none()).and_then(|role| role.model.as_ref());
        let Some(model) = frozen.filter(|_| data.rows.is_some() && !objectives.needs().rollouts) else {
            return Ok(None);
        };
        let first = data.train.in_order(u32::MAX as usize, false).into_iter().next();
        let sequences = first.map_or_else(Vec::new, |first| data.train.sequences(first, None, 0));
        for active in objectives.iter() {
            let kind = DataKind(active.manifest.data.0.clone());
            let rows = rows_of(&sequences, &kind);
            let composed = breadcrumb::within(&active.id, "compose", || active.instance.compose(&rows, 0));
            if composed.map_err(|e| failed(&active.id, "compose", e))?.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(model))
    }
}

/// Where answers lie, and what they depend on beside the data.
struct Cache {
    folder: PathBuf,
    /// Hash of the model, the temperature and who computes.
    model: String,
    temperature: f64,
    tokens: usize,
}

impl Cache {
    fn new(prepared: &Prepared, objectives: &Objectives, reads_last: bool, tokens: usize) -> Result<Cache> {
        let (experiment, temperature) = (prepared.experiment(), objectives.temperature());
        let mut hash = Sha256::new();
        hash.update(b"reference 3");
        hash.update(starting_weights(prepared)?);
        let experiment::Backend { plugin, device, dtype, options, .. } = &experiment.backend;
        let binary = prepared.plugins.first().map(|plugin| &plugin.sha256);
        let backend = (plugin, device, dtype, options, binary);
        hash.update(format!("{temperature:e} {backend:?} {reads_last} {tokens}"));
        let folder = Path::new(&experiment.runs_dir).join(".cache").join("reference");
        Ok(Cache { folder, model: hex(&hash.finalize()), temperature, tokens })
    }

    /// What the reference says of every row, and whether it was there already.
    fn read(&self, data: &Asked, model: &Model) -> Result<(Vec<Vec<Vec<f64>>>, bool)> {
        // Each row is a group of its own: those of one group are never cut apart, and all would be computed at a time.
        let rows: Vec<Vec<Sequence>> = data
            .in_order(u32::MAX as usize, false)
            .into_iter()
            .zip(0..)
            .map(|(row, group)| data.sequences(row, None, group))
            .collect();
        let lengths: Vec<Vec<usize>> = rows.iter().map(|row| row.iter().map(Sequence::positions).collect()).collect();
        let key = hex(&Sha256::new().chain_update(&self.model).chain_update(data.key()).finalize());
        let file = self.folder.join(key + ".safetensors");
        let expected: usize = lengths.iter().flatten().sum();
        if let Some(flat) = open(&file).filter(|flat| flat.len() == expected) {
            return Ok((cut(&flat, &lengths), true));
        }
        let flat = self.compute(&rows.concat(), model)?;
        // A full or read-only disk costs only time: the numbers are in memory.
        _ = write(&file, &flat);
        Ok((cut(&flat, &lengths), false))
    }

    fn compute(&self, sequences: &[Sequence], model: &Model) -> Result<Vec<f64>> {
        let mut flat = Vec::new();
        for range in pack::micro_batches(sequences, self.tokens) {
            let packed = pack::pack(&sequences[range])?;
            let rows = supervised_rows(&packed);
            flat.extend(spread(packed.len(), &rows, &logps(model, &packed, &rows, self.temperature)?));
        }
        Ok(flat)
    }
}

/// Whether a run that goes on still reads the weights it began with: for a reference that never moves.
pub fn reads_start(prepared: &Prepared, needs: Needs) -> bool {
    let from = prepared.experiment().reference.as_ref().map_or(SELF, |table| table.from.as_str());
    needs.reference && from == SELF && !prepared.is_saved("reference")
}

/// Identity of the reference's weights.
fn starting_weights(prepared: &Prepared) -> Result<String> {
    let from = prepared.experiment().reference.as_ref().map_or(SELF, |table| table.from.as_str());
    let (folder, config) = match from {
        SELF => (prepared.model_folder.clone(), prepared.config.clone()),
        path => {
            let named = prepared.named_model(path)?;
            (named.folder.clone(), named.config.clone())
        }
    };
    let Some(folder) = folder else {
        return Ok(format!("fresh {} {}", prepared.experiment().seed, config.to_json("")));
    };
    let failed = |e| Error::run(format!("cannot read {}", folder.display())).with_cause(e);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "safetensors") || file.ends_with("config.json"));
    files.retain(|file| !file.ends_with(super::state::OPTIMIZER));
    files.sort();
    files.iter().map(|file| Ok(sha256_file(file).map_err(failed)?.1)).collect()
}

/// Flat numbers by row and sequence.
fn cut(flat: &[f64], lengths: &[Vec<usize>]) -> Vec<Vec<Vec<f64>>> {
    let mut rest = flat;
    let mut take = |length: &usize| {
        let (own, after) = rest.split_at((*length).min(rest.len()));
        rest = after;
        own.to_vec()
    };
    lengths.iter().map(|row| row.iter().map(&mut take).collect()).collect()
}

const LOGP: &str = "logp";
const SEAL: &str = "sha256";

/// The numbers of a file that is whole; `None` else: they are computed anew.
fn open(file: &Path) -> Option<Vec<f64>> {
    let bytes = fs::read(file).ok()?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let (logp, seal) = (tensors.tensor(LOGP).ok()?, tensors.tensor(SEAL).ok()?);
    let whole = logp.dtype() == Dtype::F64 && Sha256::digest(logp.data()).as_slice() == seal.data();
    whole.then(|| logp.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

fn write(file: &Path, flat: &[f64]) -> Result<()> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::run(format!("cannot write {}", file.display())).with_cause(e)
    };
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|e| failed(e.into()))?;
    let bytes: Vec<u8> = flat.iter().flat_map(|value| value.to_le_bytes()).collect();
    let seal = Sha256::digest(&bytes);
    let view = |dtype, shape, bytes| TensorView::new(dtype, vec![shape], bytes);
    let tensors = [
        (LOGP, view(Dtype::F64, flat.len(), bytes.as_slice()).map_err(|e| failed(e.into()))?),
        (SEAL, view(Dtype::U8, seal.len(), seal.as_slice()).map_err(|e| failed(e.into()))?),
    ];
    let temporary = tempfile::Builder::new().prefix(".logp-").tempfile_in(folder).map_err(|e| failed(e.into()))?;
    safetensors::serialize_to_file(tensors, None, temporary.path()).map_err(|e| failed(e.into()))?;
    temporary.persist(file).map(drop).map_err(|e| failed(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a cache that answers with damaged bytes, and numbers that are handed to other rows than their own.
    #[test]
    fn gotcha_22_cached_numbers_come_back_bit_for_bit_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("below").join("a.safetensors");
        assert_eq!(open(&file), None);
        let numbers = [-0.1, f64::MIN_POSITIVE, -3.25, 0.0, 7.0];
        write(&file, &numbers).unwrap();
        assert_eq!(open(&file).unwrap(), numbers);
        assert_eq!(
            cut(&numbers, &[vec![2, 1], vec![2]]),
            [vec![vec![-0.1, f64::MIN_POSITIVE], vec![-3.25]], vec![vec![0.0, 7.0]]]
        );
        let mut bytes = fs::read(&file).unwrap();
        let last = bytes.len() - 40;
        bytes[last] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(open(&file), None);
    }
}
