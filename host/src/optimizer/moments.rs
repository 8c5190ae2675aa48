//! The optimizer's moments in a checkpoint.

use std::{borrow::Cow, cell::RefCell, collections::BTreeMap, fs, path::Path};

use plugin_api::abi::DType;
use safetensors::Dtype;

use super::kind::Optimizer;
use crate::{
    device::Buffer,
    error::{Error, Result},
    model::files::tensor_file::Safetensors,
    runs::disk::shown,
};

/// Name of the file with the moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";

/// Writes the moments into a checkpoint: flat, as the device holds them. At most one of them is in the host's memory at a time.
///
/// # Errors
/// Errors of the file system and of the backend.
pub fn write_moments(optimizer: &dyn Optimizer, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Error::run(format!("cannot write {}", shown(&path).display())).with_cause(e)
    };
    let failure = RefCell::new(None);
    let mut tensors = BTreeMap::new();
    for (name, buffer) in optimizer.moments() {
        tensors.insert(name, Moment::new(buffer, &failure));
    }
    // The library creates a file that only its owner may read. It gets the usual permissions of a new file instead.
    let usual = fs::File::create(&path).and_then(|file| file.metadata()).map_err(|e| failed(e.into()))?;
    let written = safetensors::serialize_to_file(tensors, None, &path);
    if let Some(error) = failure.take() {
        return Err(error);
    }
    written.map_err(|e| failed(e.into()))?;
    fs::set_permissions(&path, usual.permissions()).map_err(|e| failed(e.into()))
}

/// A moment on the device, downloaded when the library writes it.
struct Moment<'a> {
    buffer: &'a Buffer,
    shape: [usize; 1],
    /// The first failed download, which the library's interface cannot return.
    failure: &'a RefCell<Option<Error>>,
}

impl<'a> Moment<'a> {
    fn new(buffer: &'a Buffer, failure: &'a RefCell<Option<Error>>) -> Moment<'a> {
        Moment { buffer, shape: [buffer.len() as usize], failure }
    }
}

impl safetensors::View for Moment<'_> {
    fn dtype(&self) -> Dtype {
        stored(self.buffer.dtype())
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.buffer.download_raw(0, self.buffer.len()).unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            Vec::new()
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.buffer.len() as usize * self.buffer.dtype().size().unwrap_or(4)
    }
}

/// Reads the moments of a checkpoint back onto the device, one after the other.
///
/// # Errors
/// A request error if the file is damaged or of another model or dtype.
pub fn read_moments(optimizer: &dyn Optimizer, folder: &Path) -> Result<()> {
    let path = folder.join(OPTIMIZER);
    let failed = |e: Error| Error::request(format!("cannot read the moments in {}", path.display())).with_cause(e);
    let mut file = Safetensors::open(&path).map_err(failed)?;
    for (name, buffer) in optimizer.moments() {
        let (dtype, bytes) = file.raw(name).map_err(failed)?;
        let shape = file.shape(name).unwrap_or_default();
        if dtype != stored(buffer.dtype()) || shape != [buffer.len() as usize] {
            let (own, len) = (buffer.dtype(), buffer.len());
            return Err(failed(Error::request(format!(
                "`{name}` is {dtype:?} {shape:?}, this model's moments are {own} [{len}]"
            ))));
        }
        buffer.upload_raw(0, &bytes)?;
    }
    Ok(())
}

fn stored(dtype: DType) -> Dtype {
    if dtype == DType::F64 { Dtype::F64 } else { Dtype::F32 }
}
