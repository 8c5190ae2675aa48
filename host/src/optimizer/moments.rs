//! The optimizer's moments in a checkpoint.

use std::{collections::BTreeMap, fs, path::Path};

use plugin_api::abi::DType;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::kind::Optimizer;
use crate::{
    device::Buffer,
    error::{Error, Result},
    files,
    runs::disk::shown,
};

/// Name of the file with the moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// Writes the moments into a checkpoint: flat, as the device holds them.
///
/// # Errors
/// Errors of the file system.
pub fn write_moments(optimizer: &dyn Optimizer, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::run(format!("cannot write {}", shown(&path).display())).with_cause(e)
    };
    let read = |(name, buffer): (&'static str, &Buffer)| {
        Ok((name, stored(buffer.dtype()), vec![buffer.len() as usize], buffer.download_raw(0, buffer.len())?))
    };
    let all: Vec<_> = optimizer.moments().into_iter().map(read).collect::<Result<_>>()?;
    let mut tensors = BTreeMap::new();
    for (name, dtype, shape, bytes) in &all {
        tensors.insert(*name, TensorView::new(*dtype, shape.clone(), bytes.as_slice()).map_err(|e| failed(e.into()))?);
    }
    // The library creates a file that only its owner may read. It gets the usual permissions of a new file instead.
    let usual = fs::File::create(&path).and_then(|file| file.metadata()).map_err(|e| failed(e.into()))?;
    safetensors::serialize_to_file(tensors, None, &path).map_err(|e| failed(e.into()))?;
    fs::set_permissions(&path, usual.permissions()).map_err(|e| failed(e.into()))
}

/// Reads the moments of a checkpoint back onto the device.
///
/// # Errors
/// A request error if the file is damaged or of another model or dtype.
pub fn read_moments(optimizer: &dyn Optimizer, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::request(format!("cannot read the moments in {}", path.display())).with_cause(e)
    };
    let bytes = files::read(&path).map_err(|e| failed(e.into()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.into()))?;
    for (name, buffer) in optimizer.moments() {
        let tensor = file.tensor(name).map_err(|e| failed(e.into()))?;
        if tensor.dtype() != stored(buffer.dtype()) || tensor.shape() != [buffer.len() as usize] {
            return Err(failed(
                format!(
                    "`{name}` is {:?} {:?}, this model's moments are {} [{}]",
                    tensor.dtype(),
                    tensor.shape(),
                    buffer.dtype(),
                    buffer.len()
                )
                .into(),
            ));
        }
        buffer.upload_raw(0, tensor.data())?;
    }
    Ok(())
}

fn stored(dtype: DType) -> Dtype {
    if dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 }
}
