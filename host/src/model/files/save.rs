//! Writes a model to a Hugging Face folder, as `transformers` and llama.cpp's converter read it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use plugin_api::abi::DType;
use safetensors::tensor::Dtype;
use serde_json::json;

use super::tensor_file::{Content, TensorData, write_tensors};
use super::weights::{INDEX_FILE, MASTER_FILE, StoredWeights, WEIGHTS_FILE};
use crate::device::{
    Buffer,
    rounding::{nearest_bf16, nearest_f16},
};
use crate::error::{Error, Result};
use crate::model::loaded::Model;
use crate::model::params::{Layout, Parameter};
use crate::model::shape::config::{CONFIG_FILE, ModelConfig};
use crate::model::shape::generation_json::GENERATION_FILE;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Storage {
    /// F64, F32, BF16 or F16; `None`: the master weights' own dtype, so that loading gives the same bits.
    pub dtype: Option<Dtype>,
    /// Bytes of tensors per file, above which they are split over several files with an index; `None`: one file. A single tensor
    /// is never split.
    pub shard_size: Option<u64>,
}

/// The types in which weights can be stored, by their names in experiments and on the command line.
pub const STORED: [(&str, Dtype); 3] = [("f32", Dtype::F32), ("bf16", Dtype::BF16), ("f16", Dtype::F16)];

/// Returns the type of a name in [`STORED`].
pub fn stored_type(name: &str) -> Option<Dtype> {
    STORED.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype)
}

/// Returns the number of bytes that a size such as "5GB" names.
///
/// # Errors
/// What is wrong with the text.
pub fn bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1000),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let wrong = || format!("\"{text}\" is not a size; expected a number and a unit, such as 5GB or 500MB");
    let (number, unit) =
        units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?.trim(), *unit))).ok_or_else(wrong)?;
    let size = number.parse::<u64>().ok().filter(|number| *number > 0).and_then(|number| number.checked_mul(unit));
    size.ok_or_else(wrong)
}

/// Bytes of a value.
fn width(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::F64 => 8,
        Dtype::F32 => 4,
        _ => 2,
    }
}

impl Model {
    /// Writes `config.json`, `generation_config.json` and `model.safetensors` into an existing folder. The tensors are stored
    /// in the master weights' own dtype (f32; f64 on a backend that computes in it), so loading them gives the same bits. A model
    /// with an adapter writes the adapter's files instead of `model.safetensors`. The
    /// caller must ensure that the files are complete after a crash.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.save_as(folder, Storage::default())
    }

    /// As [`Model::save`], with the weights stored as `storage` says; an adapter is stored as it is.
    ///
    /// # Errors
    /// Errors of the file system; a weight that the dtype cannot hold.
    pub fn save_as(&self, folder: &Path, storage: Storage) -> Result<()> {
        if let Some(adapter) = self.adapter() {
            return self.save_adapter(adapter, folder);
        }
        let dtype = storage.dtype.unwrap_or(master_type(self));
        self.write_weights(folder, dtype, storage.shard_size)?;
        self.save_config(folder, CONFIG_FILE, python_name(dtype), None)
    }

    /// Writes the config into `file`, with this dtype and this further key, and `generation_config.json`.
    pub(in crate::model) fn save_config(
        &self,
        folder: &Path,
        file: &str,
        name: &str,
        further: Option<(&str, String)>,
    ) -> Result<()> {
        write_configs(self.config(), folder, file, name, further)
    }

    /// Writes the master weights into a checkpoint whose other weights are rounded, so that a run resumes with the same bits.
    /// Writes nothing if `storage` rounds nothing.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn save_masters(&self, folder: &Path, storage: Storage) -> Result<()> {
        let master = master_type(self);
        if self.adapter().is_some() || storage.dtype.is_none_or(|dtype| dtype == master) {
            return Ok(());
        }
        let tensors = self.layout().parameters().iter().map(|one| stored(self, one, master));
        write_tensors(&folder.join(MASTER_FILE), &tensors.collect::<Vec<_>>(), true)
    }

    fn write_weights(&self, folder: &Path, dtype: Dtype, shard_size: Option<u64>) -> Result<()> {
        let parameters: Vec<&Parameter> = self.layout().parameters().iter().collect();
        let mut files = WeightFiles::new(folder, &parameters, Storage { dtype: Some(dtype), shard_size });
        parameters.into_iter().try_for_each(|one| files.push(stored(self, one, dtype)))?;
        files.finish()
    }
}

/// Writes the model in `from` to the existing folder `to`, without a device: `config.json`, `generation_config.json` and the weights,
/// as `storage` says; F32 without a dtype. Of a checkpoint the master weights are read.
///
/// # Errors
/// As loading a model; errors of the file system; a weight that the dtype cannot hold.
pub fn convert(from: &Path, to: &Path, storage: Storage) -> Result<()> {
    let config = ModelConfig::from_folder(from)?;
    let layout = Layout::new(&config)?;
    let mut source = match StoredWeights::masters(from, &config, &layout)? {
        Some(masters) => masters,
        None => StoredWeights::open(from, &config, &layout)?,
    };
    source.check_tied_head()?;
    let dtype = storage.dtype.unwrap_or(Dtype::F32);
    let indices: Vec<usize> = source.indices().collect();
    let parameters: Vec<&Parameter> = indices.iter().map(|index| &layout.parameters()[*index]).collect();
    let source = &RefCell::new(source);
    let mut files = WeightFiles::new(to, &parameters, storage);
    for (index, parameter) in indices.into_iter().zip(parameters) {
        let read = move || source.borrow_mut().values(index);
        files.push(rounded_tensor(parameter, dtype, read))?;
    }
    files.finish()?;
    write_configs(&config, to, CONFIG_FILE, python_name(dtype), None)
}

/// The files of weights that are being written.
struct WeightFiles<'a> {
    folder: &'a Path,
    /// How many tensors each file gets.
    counts: Vec<usize>,
    pending: Vec<(String, TensorData<'a>)>,
    written: usize,
    index: BTreeMap<String, String>,
    elements: u64,
    width: u64,
}

impl<'a> WeightFiles<'a> {
    fn new(folder: &'a Path, parameters: &[&Parameter], storage: Storage) -> WeightFiles<'a> {
        let width = width(storage.dtype.unwrap_or(Dtype::F32));
        let limit = storage.shard_size.unwrap_or(u64::MAX);
        let counts = shards(parameters, width, limit).iter().map(|shard| shard.len()).collect();
        let elements = parameters.iter().map(|one| one.len()).sum();
        WeightFiles { folder, counts, pending: Vec::new(), written: 0, index: BTreeMap::new(), elements, width }
    }

    fn push(&mut self, tensor: (String, TensorData<'a>)) -> Result<()> {
        self.pending.push(tensor);
        let count = self.counts.len();
        if self.counts.get(self.written) != Some(&self.pending.len()) {
            return Ok(());
        }
        self.written += 1;
        let name = match count {
            1 => WEIGHTS_FILE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", self.written),
        };
        write_tensors(&self.folder.join(&name), &self.pending, true)?;
        self.index.extend(self.pending.drain(..).map(|(tensor, _)| (tensor, name.clone())));
        Ok(())
    }

    /// Writes the index of several files.
    fn finish(self) -> Result<()> {
        if self.counts.len() == 1 {
            return Ok(());
        }
        let sizes = json!({"total_parameters": self.elements, "total_size": self.elements * self.width});
        let index = json!({"metadata": sizes, "weight_map": self.index});
        write_text(&self.folder.join(INDEX_FILE), format!("{index:#}\n"))
    }
}

fn write_configs(
    config: &ModelConfig,
    folder: &Path,
    file: &str,
    name: &str,
    further: Option<(&str, String)>,
) -> Result<()> {
    let mut json = config.to_json(name);
    if let Some((key, value)) = further {
        json[key] = value.into();
    }
    let text = serde_json::to_string_pretty(&json);
    let text = text.map_err(|cause| Error::run(format!("cannot write {file}")).with_cause(cause))?;
    write_text(&folder.join(file), text + "\n")?;
    write_text(&folder.join(GENERATION_FILE), config.generation_json())
}

fn too_large(parameter: &Parameter, value: f64, dtype: Dtype) -> Error {
    let message = format!("`{}` holds {value}, which is too large for {}", parameter.name, python_name(dtype));
    let fits_f32 = (value as f32).is_finite();
    Error::run(message).with_hint(match dtype {
        Dtype::F16 if nearest_bf16(value).is_finite() => "store it as bf16 or f32",
        Dtype::F16 | Dtype::BF16 if fits_f32 => "store it as f32",
        _ => "store it without naming a type: the weights then keep their own",
    })
}

/// Cuts parameters into files of at most `limit` bytes each, in order; a larger parameter is alone in its file.
fn shards<'a>(parameters: &'a [&'a Parameter], width: u64, limit: u64) -> Vec<&'a [&'a Parameter]> {
    let bytes = |parameter: &&Parameter| parameter.len().saturating_mul(width);
    let mut size = parameters.first().map_or(0, bytes);
    let mut same_file = |_: &&Parameter, next: &&Parameter| {
        let sum = size.saturating_add(bytes(next));
        size = if sum <= limit { sum } else { bytes(next) };
        sum <= limit
    };
    parameters.chunk_by(|a, b| same_file(a, b)).collect()
}

/// The name of a dtype in config.json.
fn python_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "float64",
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        _ => "float32",
    }
}

/// The type of the master weights.
fn master_type(model: &Model) -> Dtype {
    if model.params().dtype() == DType::F64 { Dtype::F64 } else { Dtype::F32 }
}

/// Returns a parameter as a file stores it, downloaded when it is written.
fn stored<'a>(model: &'a Model, parameter: &'a Parameter, dtype: Dtype) -> (String, TensorData<'a>) {
    if dtype == master_type(model) {
        return stored_tensor(model.params(), parameter, dtype);
    }
    rounded_tensor(parameter, dtype, || model.params().download(parameter.offset, parameter.len()))
}

/// Returns a parameter as a file stores it in this dtype; its values are read when it is written.
fn rounded_tensor<'a>(
    parameter: &'a Parameter,
    dtype: Dtype,
    read: impl Fn() -> Result<Vec<f64>> + 'a,
) -> (String, TensorData<'a>) {
    let compute =
        move || rounded(&parameter.to_stored(read()?), dtype).map_err(|value| too_large(parameter, value, dtype));
    let content = Content::Later(Box::new(compute));
    (parameter.name.clone(), TensorData { dtype, shape: parameter.stored_shape(), content })
}

/// Rounds to the nearest value of a dtype, ties to even.
///
/// # Errors
/// A finite value that becomes infinite.
fn rounded(values: &[f64], dtype: Dtype) -> Result<Vec<u8>, f64> {
    fn each<const SIZE: usize>(values: &[f64], round: impl Fn(f64) -> (bool, [u8; SIZE])) -> Result<Vec<u8>, f64> {
        let mut bytes = Vec::with_capacity(values.len() * SIZE);
        for value in values {
            let (is_finite, word) = round(*value);
            if !is_finite && value.is_finite() {
                return Err(*value);
            }
            bytes.extend(word);
        }
        Ok(bytes)
    }
    match dtype {
        Dtype::BF16 => each(values, |v| (nearest_bf16(v).is_finite(), nearest_bf16(v).to_le_bytes())),
        Dtype::F16 => each(values, |v| (nearest_f16(v).is_finite(), nearest_f16(v).to_le_bytes())),
        Dtype::F64 => each(values, |v| (v.is_finite(), v.to_le_bytes())),
        _ => each(values, |v| ((v as f32).is_finite(), (v as f32).to_le_bytes())),
    }
}

/// Returns a parameter of the flat buffer as files store it, downloaded when it is written.
pub(in crate::model) fn stored_tensor<'a>(
    flat: &'a Buffer,
    parameter: &'a Parameter,
    dtype: Dtype,
) -> (String, TensorData<'a>) {
    let content = if parameter.stored_transposed || parameter.stored_heads > 0 {
        Content::Later(Box::new(move || {
            let bytes = flat.download_raw(parameter.offset, parameter.len())?;
            Ok(match dtype {
                Dtype::F64 => parameter.to_stored(bytes.as_chunks::<8>().0.to_vec()).concat(),
                _ => parameter.to_stored(bytes.as_chunks::<4>().0.to_vec()).concat(),
            })
        }))
    } else {
        Content::Pieces(Box::new(move |at, length| {
            flat.download_raw(parameter.offset + at / width(dtype), length / width(dtype))
        }))
    };
    (parameter.name.clone(), TensorData { dtype, shape: parameter.stored_shape(), content })
}

/// Writes a text file.
pub(in crate::model) fn write_text(path: &Path, text: String) -> Result<()> {
    let fail = |cause| Error::run(format!("cannot write {}", path.display())).with_cause(cause);
    std::fs::write(path, text).map_err(fail)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::model::params::Init;

    fn parameter(cols: u64) -> Parameter {
        Parameter {
            name: String::new(),
            offset: 0,
            rows: 1,
            cols,
            matrix: false,
            stored_transposed: false,
            stored_heads: 0,
            init: Init::Zero,
        }
    }

    /// Catches units of 1000 and 1024 that are exchanged, and sizes that overflow or are no sizes.
    #[test]
    fn sizes_have_units() {
        for (text, size) in [("5GB", 5_000_000_000), ("1 GiB", 1 << 30), ("300kB", 300_000), ("2MiB", 2 << 20)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["5", "GB", "0GB", "-1GB", "1.5GB", "5 TB", "99999999999999GB", ""] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    /// Catches a file that exceeds the limit although it has several tensors, a tensor that is lost, and an empty file.
    #[test]
    fn files_are_cut_at_the_limit() {
        let parameters = [3, 3, 4, 20, 1, 9, 1].map(parameter);
        let parameters: Vec<&Parameter> = parameters.iter().collect();
        let sizes = |limit: u64| -> Vec<Vec<u64>> {
            shards(&parameters, 2, limit).iter().map(|shard| shard.iter().map(|one| one.cols).collect()).collect()
        };
        assert_eq!(sizes(20), [vec![3, 3, 4], vec![20], vec![1, 9], vec![1]]);
        assert_eq!(sizes(1).len(), 7);
        assert_eq!(sizes(u64::MAX), [vec![3, 3, 4, 20, 1, 9, 1]]);
    }

    /// Catches a remedy that names the type which is too small.
    #[test]
    fn a_value_that_is_too_large_names_a_type_that_has_it() {
        let parameter = parameter(1);
        let hint = |value, dtype| too_large(&parameter, value, dtype).hint().unwrap_or_default().to_owned();
        assert_eq!(hint(70_000.0, Dtype::F16), "store it as bf16 or f32");
        let beyond_bf16 = f64::from(f32::MAX);
        assert_eq!(hint(beyond_bf16, Dtype::F16), "store it as f32");
        assert_eq!(hint(beyond_bf16, Dtype::BF16), "store it as f32");
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
            assert!(hint(1e300, dtype).contains("without naming a type"));
        }
    }

    /// Catches rounding towards zero, ties that go away from even, and an infinity that is written without an error.
    #[test]
    fn values_are_rounded_to_the_nearest() {
        let word = |value: f64, dtype| rounded(&[value], dtype).map(|bytes| [bytes[0], bytes[1]]);
        // bf16 has 8 bits: 1 + 2^-8 is a tie, to even.
        assert_eq!(word(1.0 + 1.0 / 256.0, Dtype::BF16), Ok(bf16::from_f32(1.0).to_le_bytes()));
        assert_eq!(word(1.0 + 3.0 / 256.0, Dtype::BF16), Ok(bf16::from_f32(1.015_625).to_le_bytes()));
        assert_eq!(word(1.0 + 1.01 / 256.0, Dtype::BF16), Ok(bf16::from_f32(1.007_812_5).to_le_bytes()));
        // Just above a tie, in bits that are all in the lower half of an f64.
        assert_eq!(word(1.0 + 1.0 / 256.0 + 1e-12, Dtype::BF16), Ok(bf16::from_f32(1.007_812_5).to_le_bytes()));
        assert_eq!(word(1.0 + 1.0 / 2048.0 + 1e-12, Dtype::F16), Ok(0x3c01_u16.to_le_bytes()));
        assert_eq!(word(70_000.0, Dtype::F16), Err(70_000.0));
        assert_eq!(word(65_504.0, Dtype::F16), Ok(f16::from_f32(65_504.0).to_le_bytes()));
    }
}
