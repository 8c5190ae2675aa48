//! The optimizer's moments in a checkpoint.

use std::{collections::BTreeMap, fs, path::Path};

use plugin_api::abi::DType;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::Adam;
use crate::{
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
pub fn write_moments(adam: &Adam, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::run(format!("cannot write {}", shown(&path).display())).with_cause(e)
    };
    let (m, v) = (adam.m.download_raw(0, adam.m.len())?, adam.v.download_raw(0, adam.v.len())?);
    let view = |bytes| TensorView::new(stored(adam.m.dtype()), vec![adam.m.len() as usize], bytes);
    let tensors = BTreeMap::from([
        ("exp_avg", view(m.as_slice()).map_err(|e| failed(e.into()))?),
        ("exp_avg_sq", view(v.as_slice()).map_err(|e| failed(e.into()))?),
    ]);
    // safetensors creates a file that only its owner can read. It gets the permissions of any new file instead.
    let usual = fs::File::create(&path).and_then(|file| file.metadata()).map_err(|e| failed(e.into()))?;
    safetensors::serialize_to_file(tensors, None, &path).map_err(|e| failed(e.into()))?;
    fs::set_permissions(&path, usual.permissions()).map_err(|e| failed(e.into()))
}

/// Reads the moments of a checkpoint back onto the device.
///
/// # Errors
/// A request error if the file is damaged or belongs to another model or dtype.
pub fn read_moments(adam: &Adam, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::request(format!("cannot read the moments in {}", path.display())).with_cause(e)
    };
    let bytes = files::read(&path).map_err(|e| failed(e.into()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.into()))?;
    for (name, buffer) in [("exp_avg", &adam.m), ("exp_avg_sq", &adam.v)] {
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
