//! The tensors of a GGUF file as those of a Hugging Face file: renamed, dequantised, in Hugging Face's order of rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use half::{bf16, f16};

use super::order::{swapped, transposed};
use crate::data::gguf::architecture::{self, Architecture, Change, ROTARY_FACTORS};
use crate::data::gguf::header::{Gguf, TensorInfo, read_tensor};
use crate::data::gguf::quants::{BF16, F16, F32, F64};
use crate::error::{Error, Result};

/// An open GGUF file.
pub struct GgufFile {
    header: Gguf,
    file: File,
    architecture: &'static Architecture,
    /// Names in the file by Hugging Face names.
    names: BTreeMap<String, String>,
}

impl GgufFile {
    /// Opens a file.
    ///
    /// # Errors
    /// A request error that names the file: a damaged header, an architecture that is not read, or a tensor that it does not have.
    pub fn open(path: &Path) -> Result<GgufFile> {
        let (header, file) = Gguf::open(path)?;
        let architecture = architecture::of(&header)?;
        let mut names = BTreeMap::new();
        for name in header.tensors.keys().filter(|name| *name != ROTARY_FACTORS) {
            let own = architecture.hugging_face(name).ok_or_else(|| {
                let arch = architecture.name;
                Error::request(format!("{}: tensor `{name}` is not known in a {arch} model", path.display()))
            })?;
            names.insert(own, name.clone());
        }
        Ok(GgufFile { header, file, architecture, names })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.header.path
    }

    /// Hugging Face names of its tensors, in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// The shape of a tensor in a Hugging Face file.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut shape = self.info(name)?.1.shape.clone();
        if self.is_transposed(name) {
            shape.reverse();
        }
        Some(shape)
    }

    /// The values of a tensor in the order of a Hugging Face file.
    ///
    /// # Errors
    /// A request error that names file and tensor.
    pub fn values(&mut self, name: &str) -> Result<Vec<f64>> {
        let path = self.header.path.clone();
        let fail = |what: &str| Error::request(format!("{}: tensor `{name}` {what}", path.display()));
        let (own, info) =
            self.info(name).map(|(own, info)| (own.to_owned(), info.clone())).ok_or_else(|| fail("is missing"))?;
        let bytes = read_tensor(&path, &mut self.file, &own, &info)?;
        let values = dequantised(&bytes, &info).map_err(|cause| fail("cannot be dequantised").with_cause(cause))?;
        let columns = info.shape.last().copied().unwrap_or(1);
        if self.is_transposed(name) {
            return Ok(transposed(&values, values.len() / columns, columns));
        }
        // A bias has one value per row.
        let columns = if own.ends_with(".bias") { 1 } else { columns };
        let reordered = match self.architecture.change(&self.header, &own)? {
            Change::None => return Ok(values),
            Change::Offset(offset) => return Ok(values.into_iter().map(|value| value - offset).collect()),
            Change::Pairs { heads } => halves_of_pairs(&values, heads, columns),
            Change::Joint { heads } => by_head(&values, heads),
        };
        reordered.ok_or_else(|| fail(&format!("has {} rows, which are not those of the heads", values.len() / columns)))
    }

    fn info(&self, name: &str) -> Option<(&str, &TensorInfo)> {
        let own = self.names.get(name)?;
        Some((own, self.header.tensors.get(own)?))
    }

    /// Whether a Hugging Face file stores this matrix the other way round: the linear layers of GPT-2.
    fn is_transposed(&self, name: &str) -> bool {
        let in_layer = name.starts_with(self.architecture.layer);
        let is_matrix = self.info(name).is_some_and(|(_, info)| info.shape.len() == 2);
        self.architecture.transposed && in_layer && is_matrix
    }
}

/// Reorders the rows of each head from pairs (0, D/2, 1, D/2 + 1, ...) to halves (0, 1, ..., D/2, D/2 + 1, ...); `None` if the rows
/// are not those of `heads` heads of an even width.
fn halves_of_pairs(values: &[f64], heads: usize, columns: usize) -> Option<Vec<f64>> {
    let rows = values.len() / columns.max(1);
    if heads == 0 || !rows.is_multiple_of(2 * heads) {
        return None;
    }
    let width = rows / heads;
    let source = |row: usize| {
        let (head, within) = (row / width, row % width);
        let (half, pair) = (within / (width / 2), within % (width / 2));
        head * width + 2 * pair + half
    };
    Some((0..rows).flat_map(|row| &values[source(row) * columns..][..columns]).copied().collect())
}

/// Reorders the rows of a joint projection from all queries, keys and values to the query, key and value of each head; `None` if they
/// cannot be those of `heads` heads.
fn by_head(values: &[f64], heads: usize) -> Option<Vec<f64>> {
    if heads == 0 || !values.len().is_multiple_of(3 * heads) {
        return None;
    }
    Some(swapped(values, 3, heads))
}

/// Returns the values of a tensor, in the file's order.
fn dequantised(bytes: &[u8], info: &TensorInfo) -> candle_core::Result<Vec<f64>> {
    if info.kind == F64 {
        return Ok(words(bytes).map(f64::from_le_bytes).collect());
    }
    if info.kind == F32 {
        return Ok(words(bytes).map(|word| f64::from(f32::from_le_bytes(word))).collect());
    }
    if info.kind == F16 {
        return Ok(words(bytes).map(|word| f16::from_le_bytes(word).to_f64()).collect());
    }
    if info.kind == BF16 {
        return Ok(words(bytes).map(|word| bf16::from_le_bytes(word).to_f64()).collect());
    }
    let kind = match info.kind.name {
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q4_K" => GgmlDType::Q4K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        name => return Err(candle_core::Error::Msg(format!("{name} has no dequantiser"))),
    };
    // candle reads as many bytes as these sizes say, so they are compared with those that are there.
    let (block, elements) = (kind.block_size() as u64, info.elements);
    if block != info.kind.elements || kind.type_size() as u64 != info.kind.bytes || info.bytes != bytes.len() as u64 {
        return Err(candle_core::Error::Msg(format!("the sizes of {} blocks differ from candle's", info.kind.name)));
    }
    let device = candle_core::Device::Cpu;
    let tensor = qtensor_from_ggml(kind, bytes, vec![elements as usize], &device)?.dequantize(&device)?;
    Ok(tensor.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

/// The words of these bytes.
pub(super) fn words<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> + '_ {
    bytes.as_chunks::<SIZE>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::data::fuzz;
    use crate::data::gguf::sample::llama;
    use crate::model::files::tensor_file::TensorFile;

    /// Catches a type whose blocks are read as another one's, or with another order of values: the values are those of the Python
    /// package gguf.
    #[test]
    fn every_type_is_dequantised_as_by_gguf() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/references/gguf");
        let known: Value = serde_json::from_slice(&std::fs::read(folder.join("quants.json")).unwrap()).unwrap();
        let mut file = GgufFile::open(&folder.join("quants.gguf")).unwrap();
        let tensors = known["tensors"].as_object().unwrap();
        assert_eq!(tensors.len(), crate::data::gguf::quants::TYPES.len());
        for (own, known) in tensors {
            let name = file.architecture.hugging_face(own).unwrap();
            assert_eq!(file.info(&name).map(|(_, info)| info.kind.name), known["type"].as_str());
            let expected: Vec<f64> = serde_json::from_value(known["values"].clone()).unwrap();
            let found = file.values(&name).unwrap();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (at, (a, b)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (a - b).abs() <= 1e-6 * b.abs().max(1e-2),
                    "{}: value {at} is {a}, expected {b}",
                    known["type"]
                );
            }
        }
    }

    /// Catches rows of queries that stay in pairs, and other tensors that are reordered.
    #[test]
    fn rows_of_pairs_become_halves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, llama().bytes()).unwrap();
        let mut file = TensorFile::open(&path).unwrap();
        let mut rows = |name: &str| -> Vec<f64> {
            let shape = file.shape(name).unwrap();
            file.values(name).unwrap().chunks(shape[1]).map(|row| row[0] / shape[1] as f64).collect()
        };
        let layer = "model.layers.0.self_attn";
        assert_eq!(rows(&format!("{layer}.q_proj.weight")), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(rows(&format!("{layer}.k_proj.weight")), [0.0, 2.0, 1.0, 3.0]);
        assert_eq!(rows(&format!("{layer}.v_proj.weight")), [0.0, 1.0, 2.0, 3.0]);
    }

    /// Catches a panic, a hang or an error without the file's name when the tensors of a damaged file are read.
    #[test]
    fn tensors_of_changed_files_are_read_or_refused() {
        let quants = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/references/gguf/quants.gguf");
        let corpus = vec![llama().bytes(), std::fs::read(quants).unwrap()];
        let words = ["blk.0.attn_q.weight", "\u{1}\u{0}\u{0}\u{0}", "\u{c}\u{0}\u{0}\u{0}", "llama"];
        fuzz::run("GGUF tensors", if cfg!(debug_assertions) { 300 } else { 3000 }, move |random| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model.gguf");
            std::fs::write(&path, fuzz::mutated(random, &corpus, &words)).unwrap();
            let read = TensorFile::open(&path)
                .and_then(|mut file| file.names().iter().try_for_each(|name| file.values(name).map(|_| ())));
            match read {
                Ok(()) => Ok("read"),
                Err(error) if error.report().contains("model.gguf") => Ok("refused"),
                Err(error) => Err(error.report()),
            }
        });
    }
}
