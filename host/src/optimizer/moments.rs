//! The optimizer's moments in a checkpoint.

use std::path::Path;

use plugin_api::abi::DType;
use safetensors::Dtype;

use super::kind::Optimizer;
use crate::{
    error::{Error, Result},
    model::files::tensor_file::{Content, Safetensors, TensorData, write_tensors},
};

/// Name of the file with the moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// Writes the moments into a checkpoint: flat, as the device holds them, a piece at a time.
///
/// # Errors
/// Errors of the file system and of the backend.
pub fn write_moments(optimizer: &dyn Optimizer, folder: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, buffer) in optimizer.moments() {
        let (dtype, shape) = (stored(buffer.dtype()), vec![buffer.len() as usize]);
        let size = buffer.dtype().size().unwrap_or(4) as u64;
        let content = Content::Pieces(Box::new(move |at, length| buffer.download_raw(at / size, length / size)));
        tensors.push((name.to_owned(), TensorData { dtype, shape, content }));
    }
    write_tensors(&folder.join(OPTIMIZER), &tensors, false)
}

/// Reads the moments of a checkpoint back onto the device, a piece at a time.
///
/// # Errors
/// A request error if the file is damaged or of another model or dtype.
pub fn read_moments(optimizer: &dyn Optimizer, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Error| Error::request(format!("cannot read the moments in {}", path.display())).with_cause(e);
    let mut file = Safetensors::open(&path).map_err(failed)?;
    for (name, buffer) in optimizer.moments() {
        let dtype = file.dtype(name).map_err(failed)?;
        let shape = file.shape(name).unwrap_or_default();
        if dtype != stored(buffer.dtype()) || shape != [buffer.len() as usize] {
            let (own, len) = (buffer.dtype(), buffer.len());
            return Err(failed(Error::request(format!(
                "`{name}` is {dtype:?} {shape:?}, this model's moments are {own} [{len}]"
            ))));
        }
        let size = buffer.dtype().size().unwrap_or(4) as u64;
        file.pieces(name, |at, bytes| buffer.upload_raw(at / size, bytes))?;
    }
    Ok(())
}

fn stored(dtype: DType) -> Dtype {
    if dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 }
}
