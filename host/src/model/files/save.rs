//! Writes a model to a Hugging Face folder.

use std::borrow::Cow;
use std::path::Path;

use plugin_api::abi::DType;
use safetensors::tensor::Dtype;

use super::tensor_file::{TensorData, write_tensors};
use super::weights::WEIGHTS_FILE;
use crate::device::Buffer;
use crate::error::{Error, Result};
use crate::model::loaded::Model;
use crate::model::params::Parameter;
use crate::model::shape::config::CONFIG_FILE;
use crate::model::shape::generation_json::GENERATION_FILE;

impl Model {
    /// Writes `config.json`, `generation_config.json` and `model.safetensors` into an existing folder. The tensors are stored
    /// in the master weights' own dtype (f32; f64 on a backend that computes in it), so loading them gives the same bits. A model
    /// with an adapter writes the adapter's files instead of `model.safetensors`. The
    /// caller must ensure that the files are complete after a crash.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn save(&self, folder: &Path) -> Result<()> {
        if let Some(adapter) = self.adapter() {
            return self.save_adapter(adapter, folder);
        }
        let params = self.params();
        let (dtype, name) = match params.dtype() {
            DType::F64 => (Dtype::F64, "float64"),
            _ => (Dtype::F32, "float32"),
        };
        let tensors = stored_tensors(self, dtype)?;
        write_tensors(&folder.join(WEIGHTS_FILE), &tensors)?;
        self.save_config(folder, CONFIG_FILE, name)
    }

    /// Writes the config into `file`, with this dtype, and `generation_config.json`.
    pub(in crate::model) fn save_config(&self, folder: &Path, file: &str, name: &str) -> Result<()> {
        let config = serde_json::to_string_pretty(&self.config().to_json(name));
        let config = config.map_err(|cause| Error::run(format!("cannot write {file}")).with_cause(cause))?;
        write_text(&folder.join(file), config + "\n")?;
        write_text(&folder.join(GENERATION_FILE), self.config().generation_json())
    }
}

fn stored_tensors(model: &Model, dtype: Dtype) -> Result<Vec<(String, TensorData<'static>)>> {
    model.layout().parameters().iter().map(|parameter| stored_tensor(model.params(), parameter, dtype)).collect()
}

/// Returns a parameter of the flat buffer as files store it.
pub(in crate::model) fn stored_tensor(
    flat: &Buffer,
    parameter: &Parameter,
    dtype: Dtype,
) -> Result<(String, TensorData<'static>)> {
    let bytes = flat.download_raw(parameter.offset, parameter.len())?;
    let bytes = match (parameter.stored_transposed || parameter.stored_heads > 0, dtype) {
        (false, _) => bytes,
        (true, Dtype::F64) => parameter.to_stored(bytes.as_chunks::<8>().0.to_vec()).concat(),
        (true, _) => parameter.to_stored(bytes.as_chunks::<4>().0.to_vec()).concat(),
    };
    let data = TensorData { dtype, shape: parameter.stored_shape(), bytes: Cow::Owned(bytes) };
    Ok((parameter.name.clone(), data))
}

/// Writes a text file.
pub(in crate::model) fn write_text(path: &Path, text: String) -> Result<()> {
    let fail = |cause| Error::run(format!("cannot write {}", path.display())).with_cause(cause);
    std::fs::write(path, text).map_err(fail)
}
