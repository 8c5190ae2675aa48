//! Files of tensors: reading one, with its header checked when it is opened and its tensors read one at a time; and writing
//! one. A file is safetensors, or GGUF if its name ends so.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::gguf_file::GgufFile;
use crate::data::gguf;
use crate::data::reading::foreign;
use crate::error::{Error, Result};
use crate::files;
use crate::runs::disk::shown;

/// An open file of tensors, whose names and shapes are those of Hugging Face files.
pub enum TensorFile {
    /// Safetensors.
    Safetensors(Safetensors),
    /// GGUF.
    Gguf(GgufFile),
}

impl TensorFile {
    /// Opens a file and checks that its header is readable and matches the file's length.
    ///
    /// # Errors
    /// A request error that names the file.
    pub fn open(path: &Path) -> Result<TensorFile> {
        match gguf::is_named(path) {
            true => GgufFile::open(path).map(TensorFile::Gguf),
            false => Safetensors::open(path).map(TensorFile::Safetensors),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            TensorFile::Safetensors(file) => &file.path,
            TensorFile::Gguf(file) => file.path(),
        }
    }

    /// Names of its tensors, in alphabetical order.
    pub fn names(&self) -> Vec<String> {
        match self {
            TensorFile::Safetensors(file) => file.names(),
            TensorFile::Gguf(file) => file.names(),
        }
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self {
            TensorFile::Safetensors(file) => file.shape(name).map(<[usize]>::to_vec),
            TensorFile::Gguf(file) => file.shape(name),
        }
    }

    /// The dtype of a tensor, by the format's name (`F32`).
    pub fn dtype(&self, name: &str) -> Option<String> {
        match self {
            TensorFile::Safetensors(file) => file.metadata.info(name).map(|info| format!("{:?}", info.dtype)),
            TensorFile::Gguf(file) => file.dtype(name),
        }
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// A request error that names file and tensor, if the tensor is missing or, in safetensors, not F32, F16, BF16 or F64.
    pub fn values(&mut self, name: &str) -> Result<Vec<f64>> {
        match self {
            TensorFile::Safetensors(file) => file.values(name),
            TensorFile::Gguf(file) => file.values(name),
        }
    }
}

/// An open safetensors file.
pub struct Safetensors {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

/// The largest header the format allows.
const MAX_HEADER: u64 = 100_000_000;

impl Safetensors {
    /// Opens a file and checks that its header is readable and matches the file's length.
    ///
    /// # Errors
    /// A request error that names the file.
    pub fn open(path: &Path) -> Result<Safetensors> {
        let fail = |what: &str| Error::request(format!("{}: {what}", path.display()));
        let mut file = files::open(path).map_err(|cause| fail("cannot be opened").with_cause(cause))?;
        foreign::refuse_lfs_pointer(path)?;
        let length = file.metadata().map_err(|cause| fail("cannot be read").with_cause(cause))?.len();
        let truncated = |cause| fail("is not a safetensors file, or is truncated").with_cause(cause);
        let mut size = [0_u8; 8];
        file.read_exact(&mut size).map_err(truncated)?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length.saturating_sub(8) {
            return Err(fail(&format!("is not a safetensors file, or is truncated (a header of {size} bytes)")));
        }
        let mut header = vec![0_u8; size as usize];
        file.read_exact(&mut header).map_err(truncated)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|cause| fail("has a header that is not valid").with_cause(cause))?;
        // The header may state any 64-bit size.
        let expected = (8 + size).saturating_add(metadata.data_len() as u64);
        if expected != length {
            return Err(fail(&format!(
                "has {length} bytes, its header promises {expected}: it is truncated or damaged"
            )));
        }
        Ok(Safetensors { path: path.to_owned(), file, data_start: 8 + size, metadata })
    }

    /// Names of its tensors, in alphabetical order.
    fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort();
        names
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// The values of a tensor of F32, F16, BF16 or F64.
    ///
    /// # Errors
    /// A request error that names file and tensor, if the tensor is missing or has another dtype.
    fn values(&mut self, name: &str) -> Result<Vec<f64>> {
        let (dtype, bytes) = self.raw(name)?;
        let values = match dtype {
            Dtype::F64 => words(&bytes).map(f64::from_le_bytes).collect(),
            Dtype::F32 => words(&bytes).map(|word| f64::from(f32::from_le_bytes(word))).collect(),
            Dtype::F16 => words(&bytes).map(|word| f16::from_le_bytes(word).to_f64()).collect(),
            Dtype::BF16 => words(&bytes).map(|word| bf16::from_le_bytes(word).to_f64()).collect(),
            other => {
                return Err(self.fail(name, &format!("is {other:?}, expected F32, F16, BF16 or F64")));
            }
        };
        Ok(values)
    }

    /// The bytes of a tensor, and their dtype.
    ///
    /// # Errors
    /// A request error that names file and tensor.
    pub fn raw(&mut self, name: &str) -> Result<(Dtype, Vec<u8>)> {
        let Some(TensorInfo { dtype, data_offsets: (start, end), .. }) = self.metadata.info(name).cloned() else {
            return Err(self.fail(name, "is missing"));
        };
        let mut bytes = Vec::new();
        // A sparse file can be larger than memory.
        bytes
            .try_reserve_exact(end - start)
            .map_err(|cause| self.fail(name, "does not fit into memory").with_cause(cause))?;
        bytes.resize(end - start, 0_u8);
        let read = self
            .file
            .seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|cause| self.fail(name, "cannot be read").with_cause(cause))?;
        Ok((dtype, bytes))
    }

    fn fail(&self, name: &str, what: &str) -> Error {
        Error::request(format!("{}: tensor `{name}` {what}", self.path.display()))
    }
}

fn words<const SIZE: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; SIZE]> + '_ {
    bytes.as_chunks::<SIZE>().0.iter().copied()
}

/// A tensor to write: dtype, shape and little-endian bytes.
pub struct TensorData<'a> {
    /// The format's dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub content: Content<'a>,
}

/// The bytes of a tensor to write.
pub enum Content<'a> {
    /// Bytes in memory.
    Held(Vec<u8>),
    /// Bytes that are computed when they are written, so that one tensor at a time is in memory.
    Later(Box<dyn Fn() -> Result<Vec<u8>> + 'a>),
}

/// A tensor for the library, whose interface returns no errors.
struct Viewed<'a> {
    tensor: &'a TensorData<'a>,
    /// The first error of [`Content::Later`].
    failure: &'a RefCell<Option<Error>>,
}

impl safetensors::View for Viewed<'_> {
    fn dtype(&self) -> Dtype {
        self.tensor.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.tensor.content {
            Content::Held(bytes) => Cow::Borrowed(bytes),
            Content::Later(compute) => Cow::Owned(compute().unwrap_or_else(|error| {
                self.failure.borrow_mut().get_or_insert(error);
                Vec::new()
            })),
        }
    }

    fn data_len(&self) -> usize {
        self.tensor.shape.iter().product::<usize>() * self.tensor.dtype.bitsize() / 8
    }
}

/// Writes a safetensors file, with the metadata `format: pt` that Hugging Face libraries write if `mark` says so. The same tensors give
/// the same bytes.
///
/// # Errors
/// Errors of the file system and of [`Content::Later`]; a shape that contradicts its bytes.
pub fn write_tensors(path: &Path, tensors: &[(String, TensorData<'_>)], mark: bool) -> Result<()> {
    let fail = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::run(format!("cannot write {}", shown(path).display())).with_cause(cause)
    };
    let mark = mark.then(|| HashMap::from([("format".to_owned(), "pt".to_owned())]));
    let failure = RefCell::new(None);
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), Viewed { tensor, failure: &failure }));
    // The library creates a file that only its owner may read. It gets the usual permissions of a new file instead.
    let usual = File::create(path).and_then(|file| file.metadata()).map_err(|e| fail(e.into()))?;
    let written = safetensors::serialize_to_file(named, mark, path);
    if let Some(error) = failure.take() {
        return Err(error);
    }
    written.map_err(|e| fail(e.into()))?;
    std::fs::set_permissions(path, usual.permissions()).map_err(|e| fail(e.into()))
}
