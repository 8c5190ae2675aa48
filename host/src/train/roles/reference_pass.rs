//! The log-probabilities that a frozen reference gives to rows: computed once, before the first step, stored on disk under the
//! hash of everything they depend on, and passed on with the rows. So a run holds one model less, and the next run on the same
//! data computes nothing.
//!
//! The numbers belong to rows, not to places in a batch, so shuffling does not matter. Rows are computed in blocks that depend
//! only on the data, so the numbers are the same bits whichever rows a run reads, and however often it was interrupted. Only
//! blocks with a row that the run reads are computed; [`reference_cache`](crate::train::roles::reference_cache) stores each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use plugin_api::manifest::{AttentionMask, DataKind};
use sha2::{Digest, Sha256};

use super::{reference::Reference, reference_cache::BlockFile, rows_with_reference::RowsWithReference};
use crate::{
    config::experiment::{self, ReferenceAdapter, SELF},
    data::{Examples, Sequence, TrainingData, cache::hex, gguf, order::DocumentSpan, pack},
    device::open::threads,
    error::{Error, Result},
    model::{
        Model,
        adapter::config::{ADAPTER_CONFIG, base_of},
        files::hash::file_sha256,
        shape::config::CONFIG_FILE,
    },
    objectives::{
        Objectives,
        active::failed,
        batch_arrays::{spread, supervised_rows},
        compose::rows_of,
        needs::Needs,
    },
    runs::{Interrupt, Progress, breadcrumb},
    setup::{Setup, named::AdapterStart},
    train::step::forward::logps,
};

/// Maximum positions of a block of several rows; a longer row is its own block. Large enough that overhead does not dominate a
/// forward pass, small enough that few rows are computed that no step reads, and that an interruption takes effect soon.
pub(crate) const BLOCK: usize = 512;

/// The rows that a run reads, as indices in each side's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowsRead {
    /// Rows that steps read.
    pub train: BTreeSet<u32>,
    /// Rows that evaluations read.
    pub held_out: BTreeSet<u32>,
}

/// The pass in which a frozen reference scores rows before the first step.
pub struct ReferencePass {
    train: Arc<RowsWithReference>,
    held_out: Arc<RowsWithReference>,
    cache: Cache,
}

/// How a reference pass ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassEnd {
    /// All rows have their numbers; contains a line for the user.
    Scored(String),
    /// The user interrupted the pass. What was computed is in the cache.
    Interrupted,
}

/// Returns the data as the models read it. If a frozen reference's log-probabilities can be computed in advance and `cached` is
/// set, also returns the pass that computes them or reads them from the cache: it must run before the first step, and the model
/// can be dropped then. Otherwise the model stays and runs in every step.
///
/// # Errors
/// Weights that cannot be read; errors of plugins.
pub fn open(
    setup: &Setup,
    data: TrainingData,
    objectives: &Objectives,
    reference: Option<&mut Reference>,
    cached: bool,
) -> Result<(TrainingData, Option<ReferencePass>)> {
    let reads_last = objectives.needs().reads_last();
    let train = RowsWithReference::new(data.train.clone(), reads_last);
    let held_out = RowsWithReference::new(data.held_out.clone(), reads_last);
    let mut pass = None;
    if cached && cacheable(&data, objectives, reference.as_deref())?.is_some() {
        let cache = Cache::new(setup, objectives, reads_last)?;
        pass = Some(ReferencePass { train: train.clone(), held_out: held_out.clone(), cache });
        if let Some(reference) = reference {
            reference.dropped_early = true;
        }
    }
    Ok((TrainingData { train, held_out, ..data }, pass))
}

/// Returns the reference's model if its log-probabilities of the data can be computed in advance: it does not track the policy,
/// the data are rows whose sequences no objective composes, the policy does not answer them itself, and nothing else is read of the
/// reference.
///
/// # Errors
/// Errors of plugins.
pub(crate) fn cacheable<'r>(
    data: &TrainingData,
    objectives: &Objectives,
    reference: Option<&'r Reference>,
) -> Result<Option<&'r Model>> {
    let frozen = reference.filter(|role| role.follow.is_none()).and_then(|role| role.model.as_ref());
    let Some(model) =
        frozen.filter(|_| data.rows.is_some() && !objectives.needs().rollouts && !objectives.needs().reference_in_step)
    else {
        return Ok(None);
    };
    let first = data.train.in_order(u32::MAX as usize, false).into_iter().next();
    let sequences = first.map_or_else(Vec::new, |first| data.train.sequences(first, None, 0));
    for active in objectives.iter() {
        let kind = DataKind(active.manifest.data.0.clone());
        let rows = rows_of(&sequences, &kind, usize::MAX);
        let composed = breadcrumb::within(&active.id, "compose", || active.instance.compose(&rows, 0));
        if composed.map_err(|e| failed(&active.id, "compose", e))?.is_some() {
            return Ok(None);
        }
    }
    Ok(Some(model))
}

impl ReferencePass {
    /// Sets whether rows that were not scored carry zeros. No step reads such a row, but the memory check may.
    pub fn use_zeros(&self, zeros: bool) {
        for side in [&self.train, &self.held_out] {
            side.use_zeros(zeros);
        }
    }

    /// Provides the rows in `read` with their numbers: from the cache, or computed by `model` and added to it.
    ///
    /// # Errors
    /// Errors of the backend. A cache that cannot be read or written only costs time.
    pub fn run(&self, model: &Model, read: &RowsRead, progress: &Progress, interrupt: &Interrupt) -> Result<PassEnd> {
        let mut sides = [(&self.train, &read.train), (&self.held_out, &read.held_out)]
            .map(|(data, read)| Side::new(data, read, self.cache.open(&data.key())));
        let rows = |side: &Side<'_>| side.blocks.iter().map(|block| block.rows.len()).sum::<usize>();
        let rows: usize = sides.iter().map(rows).sum();
        let missing: usize = sides.iter().flat_map(Side::missing).map(|block| block.rows.len()).sum();
        if missing > 0 {
            progress.message(&format!(
                "the reference scores {missing} of {} rows before the first step, in whole blocks of neighbouring rows; {} are in the cache",
                self.train.documents() + self.held_out.documents(),
                rows - missing
            ));
        }
        let task = progress.task("rows scored by the reference", missing as u64);
        let (mut done, mut unwritten) = (0, None);
        for side in &mut sides {
            for block in side.missing().cloned().collect::<Vec<_>>() {
                if interrupt.requested() {
                    task.finish();
                    progress.message(&format!(
                        "stopped while the reference scored rows: {done} of {missing} are done and kept in {}",
                        self.cache.folder.display()
                    ));
                    return Ok(PassEnd::Interrupted);
                }
                let numbers = self.cache.compute(&side.sequences(&block.rows), model)?;
                unwritten = side.file.add(block.rows.start as u64, numbers).err().or(unwritten);
                done += block.rows.len();
                task.done(done as u64);
            }
        }
        task.finish();
        for side in sides {
            side.data.set_reference(side.numbers());
        }
        let (how, folder) = (if missing == 0 { "read from" } else { "computed into" }, self.cache.folder.display());
        let unwritten = unwritten.map_or(String::new(), |why| format!(", which cannot be written: {why}"));
        Ok(PassEnd::Scored(format!("the reference's log-probabilities were {how} {folder}{unwritten}")))
    }
}

/// One side of the data during the pass.
struct Side<'a> {
    data: &'a RowsWithReference,
    /// All rows in their order.
    order: Vec<DocumentSpan>,
    /// The blocks with a row that the run reads.
    blocks: Vec<Block>,
    file: BlockFile,
}

/// Rows that are computed together.
#[derive(Clone)]
struct Block {
    rows: Range<usize>,
    /// Positions of each sequence of each row.
    lengths: Vec<Vec<usize>>,
}

impl<'a> Side<'a> {
    fn new(data: &'a RowsWithReference, read: &BTreeSet<u32>, file: BlockFile) -> Side<'a> {
        let order = data.in_order(u32::MAX as usize, false);
        let mut side = Side { data, blocks: Vec::new(), file, order };
        let block = |rows: Range<usize>| {
            let lengths = |row: Vec<Sequence>| row.iter().map(Sequence::positions).collect();
            Block { lengths: side.rows(&rows).map(lengths).collect(), rows }
        };
        side.blocks = blocks(&side.order, read).into_iter().map(block).collect();
        side
    }

    /// Returns the blocks whose numbers are not known yet.
    fn missing(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| self.known(block).is_none())
    }

    /// Returns the numbers of a block, if they are known and as many as its rows have positions.
    fn known(&self, block: &Block) -> Option<&[f64]> {
        let positions: usize = block.lengths.iter().flatten().sum();
        self.file.get(block.rows.start as u64).filter(|numbers| numbers.len() == positions)
    }

    /// Returns the sequences of each of these rows. Each row is its own group: the answers of one group are never split.
    fn rows(&self, rows: &Range<usize>) -> impl Iterator<Item = Vec<Sequence>> {
        let own = self.order.get(rows.clone()).unwrap_or_default();
        own.iter().zip(0..).map(|(row, group)| self.data.sequences(*row, None, group))
    }

    fn sequences(&self, rows: &Range<usize>) -> Vec<Sequence> {
        self.rows(rows).flatten().collect()
    }

    /// Returns all numbers of each document, by sequence.
    fn numbers(&self) -> BTreeMap<u32, Vec<Vec<f64>>> {
        let own = |block: &Block| {
            let rows = cut(self.known(block).unwrap_or_default(), &block.lengths);
            let order = self.order.get(block.rows.clone()).unwrap_or_default();
            order.iter().map(|row| row.document).zip(rows)
        };
        self.blocks.iter().flat_map(own).collect()
    }
}

/// Returns the blocks of all `rows`, in order, that contain a row in `read`. The bounds of blocks depend only on the rows.
fn blocks(rows: &[DocumentSpan], read: &BTreeSet<u32>) -> Vec<Range<usize>> {
    let (mut all, mut start, mut positions) = (Vec::new(), 0, 0);
    for (row, span) in rows.iter().enumerate() {
        if row > start && positions + span.targets() > BLOCK {
            all.push(start..row);
            (start, positions) = (row, 0);
        }
        positions += span.targets();
    }
    if start < rows.len() {
        all.push(start..rows.len());
    }
    all.retain(|block| read.range(block.start as u32..block.end as u32).next().is_some());
    all
}

/// Where the numbers are stored, and what they depend on apart from the data.
struct Cache {
    folder: PathBuf,
    /// Hash of the model, the temperature and the backend.
    model: String,
    temperature: f64,
}

impl Cache {
    fn new(setup: &Setup, objectives: &Objectives, reads_last: bool) -> Result<Cache> {
        let (experiment, temperature) = (setup.experiment(), objectives.temperature());
        let mut hash = Sha256::new();
        hash.update(b"reference 4");
        hash.update(starting_weights(setup)?);
        let experiment::Backend { plugin, device, dtype, options, .. } = &experiment.backend;
        let binary = setup.plugins.first().map(|plugin| &plugin.sha256);
        let backend = (plugin, device, dtype, options, binary, setup.instruction_set());
        hash.update(format!("{temperature:e} {backend:?} {reads_last} {BLOCK}"));
        // Causal attention is left out, so that caches of earlier versions stay valid.
        if *objectives.attention() != AttentionMask::CAUSAL {
            hash.update(objectives.attention().as_str());
        }
        if let Some(libraries) = setup.plugins.first().and_then(|plugin| plugin.libraries.as_ref()) {
            libraries.iter().for_each(|library| hash.update(&library.sha256));
        }
        if setup.threads_matter() {
            hash.update(format!("{} threads", threads(experiment.backend.threads)));
        }
        let folder = Path::new(&experiment.runs_dir).join(".cache").join("reference");
        Ok(Cache { folder, model: hex(&hash.finalize()), temperature })
    }

    /// Opens the file for the data with this key.
    fn open(&self, data: &str) -> BlockFile {
        let key = hex(&Sha256::new().chain_update(&self.model).chain_update(data).finalize());
        BlockFile::open(&self.folder.join(key + ".logps"))
    }

    /// Returns one number per position; 0 where the target is not supervised.
    fn compute(&self, sequences: &[Sequence], model: &Model) -> Result<Vec<f64>> {
        let packed = pack::pack(sequences)?;
        let rows = supervised_rows(&packed);
        Ok(spread(packed.len(), &rows, &logps(model, &packed, &rows, self.temperature)?))
    }
}

/// Returns whether a resumed run still reads the weights it began with: for a frozen reference that is not in the checkpoint.
pub fn reads_start(setup: &Setup, needs: Needs) -> bool {
    let from = setup.experiment().reference.as_ref().map_or(SELF, |table| table.from.as_str());
    // An adapter is saved without the weights that it adapts.
    setup.adapter.is_some() || needs.reference && from == SELF && !setup.is_saved("reference")
}

/// Returns a hash of the reference's weights.
fn starting_weights(setup: &Setup) -> Result<String> {
    let from = setup.experiment().reference.as_ref().map_or(SELF, |table| table.from.as_str());
    let start = match (from, &setup.adapter) {
        (SELF, Some(start))
            if setup.experiment().reference.as_ref().and_then(|table| table.adapter) != Some(ReferenceAdapter::Off) =>
        {
            match start {
                AdapterStart::Fresh(settings) => format!("adapter {settings:?} {}", setup.experiment().seed),
                AdapterStart::Folder(folder) => hash_of(folder)?,
            }
        }
        _ => String::new(),
    };
    let (folder, config) = match from {
        SELF => (setup.model_folder.clone(), setup.config.clone()),
        path => {
            let named = setup.named_model(path)?;
            (named.folder.clone(), named.config.clone())
        }
    };
    let Some(folder) = folder else {
        return Ok(format!("fresh {} {}{start}", setup.experiment().seed, config.to_json("")));
    };
    let base = base_of(&folder)?;
    let of_base = if base == folder { String::new() } else { hash_of(&base)? };
    Ok(hash_of(&folder)? + &of_base + &start)
}

/// Returns the hashes of a folder's weights and settings, or of the GGUF file that holds both.
fn hash_of(folder: &Path) -> Result<String> {
    if let Some(file) = gguf::at(folder)? {
        return file_sha256(&file);
    }
    let failed = |e| Error::run(format!("cannot read {}", folder.display())).with_cause(e);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).map_err(failed)?.flatten().map(|entry| entry.path()).collect();
    // An adapter's settings hold its scale.
    let settings = |file: &Path| file.ends_with(CONFIG_FILE) || file.ends_with(ADAPTER_CONFIG);
    files.retain(|file| file.extension().is_some_and(|e| e == "safetensors") || settings(file));
    files.retain(|file| !file.ends_with(crate::optimizer::moments::OPTIMIZER));
    files.sort();
    files.iter().map(|file| file_sha256(file)).collect()
}

/// Splits flat numbers by row and sequence.
fn cut(flat: &[f64], lengths: &[Vec<usize>]) -> Vec<Vec<Vec<f64>>> {
    let mut rest = flat;
    let mut take = |length: &usize| {
        let (own, after) = rest.split_at((*length).min(rest.len()));
        rest = after;
        own.to_vec()
    };
    lengths.iter().map(|row| row.iter().map(&mut take).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns rows of these lengths.
    fn rows(lengths: &[u32]) -> Vec<DocumentSpan> {
        let row = |(length, document): (&u32, u32)| DocumentSpan { document, begin: 1, end: 1 + length };
        lengths.iter().zip(0..).map(row).collect()
    }

    /// Catches blocks that depend on which rows are read (their bits would too), a row that is in no block or in two, a block
    /// that exceeds its maximum, and blocks that no step reads.
    #[test]
    fn gotcha_22_blocks_depend_on_the_data_alone() {
        let data = rows(&[100, 200, 212, 1, 600, 2, 510, 1]);
        let every = (0..8).collect();
        let all = blocks(&data, &every);
        assert_eq!(all, [0..3, 3..4, 4..5, 5..7, 7..8]);
        for row in 0..8 {
            let own = blocks(&data, &BTreeSet::from([row]));
            assert_eq!(own.len(), 1);
            assert!(own[0].contains(&(row as usize)) && all.contains(&own[0]), "{row}: {own:?}");
        }
        assert_eq!(blocks(&data, &BTreeSet::from([0, 6])), [0..3, 5..7]);
        assert!(blocks(&data, &BTreeSet::new()).is_empty());
        assert!(blocks(&rows(&[]), &every).is_empty());
    }

    /// Catches a reference in one GGUF file that is listed as if it were a folder, and two files with one hash.
    #[test]
    fn a_gguf_file_has_a_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        fs::write(&file, "a").unwrap();
        let first = hash_of(&file).unwrap();
        assert_eq!(hash_of(folder.path()).unwrap(), first);
        fs::write(&file, "b").unwrap();
        assert_ne!(hash_of(&file).unwrap(), first);
    }

    /// Catches an adapter whose scale changes while its numbers are read from the cache.
    #[test]
    fn the_scale_of_an_adapter_counts() {
        let folder = tempfile::tempdir().unwrap();
        let hash = |alpha: u32, weights: &str| {
            fs::write(folder.path().join("adapter_config.json"), format!("{{\"lora_alpha\": {alpha}}}")).unwrap();
            fs::write(folder.path().join("adapter_model.safetensors"), weights).unwrap();
            hash_of(folder.path()).unwrap()
        };
        let first = hash(8, "a");
        assert_ne!(hash(16, "a"), first);
        assert_ne!(hash(8, "b"), first);
        assert_eq!(hash(8, "a"), first);
    }

    /// Catches numbers that are given to other rows than their own.
    #[test]
    fn numbers_are_split_by_row_and_sequence() {
        let numbers = [-0.1, f64::MIN_POSITIVE, -3.25, 0.0, 7.0];
        assert_eq!(
            cut(&numbers, &[vec![2, 1], vec![2]]),
            [vec![vec![-0.1, f64::MIN_POSITIVE], vec![-3.25]], vec![vec![0.0, 7.0]]]
        );
    }
}
