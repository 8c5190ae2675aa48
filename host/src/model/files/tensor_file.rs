//! Files of tensors: reading one, with its header checked when it is opened and its tensors read one at a time; and writing
//! one. A file is safetensors, or GGUF if its name ends so.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::gguf_file::{GgufFile, words};
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

/// What to do about a file that was not downloaded.
const AGAIN: &str = "download or copy the file again";

/// How files of other kinds begin, in lower case.
const OTHERS: [(&[u8], &str); 8] = [
    (b"<!", "HTML, as the page of a website does"),
    (b"<htm", "HTML, as the page of a website does"),
    (b"<?xml", "XML, as the page of a website does"),
    (b"{\"", "JSON"),
    (b"{}", "JSON"),
    (b"pk\x03\x04", "the bytes of a file of PyTorch"),
    (b"\x80\x02", "the bytes of a file of PyTorch"),
    (b"gguf", "the bytes of a GGUF file"),
];

/// Returns what a file is that begins with these bytes, if they are those of another format.
fn other_content(begin: [u8; 8]) -> Option<&'static str> {
    let lower = begin.trim_ascii_start().to_ascii_lowercase();
    let known = OTHERS.iter().find(|(with, _)| lower.starts_with(with)).map(|(_, what)| *what);
    let is_text = || begin.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    known.or_else(|| is_text().then_some("text"))
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
        if length < 8 {
            let what = if length == 0 { "is empty".to_owned() } else { format!("has only {length} bytes") };
            return Err(fail(&format!("{what}, so it is not a safetensors file")).with_hint(AGAIN));
        }
        let mut size = [0_u8; 8];
        file.read_exact(&mut size).map_err(|cause| fail("cannot be read").with_cause(cause))?;
        let (begin, size) = (size, u64::from_le_bytes(size));
        if let Some(what) = other_content(begin).filter(|_| size > MAX_HEADER) {
            return Err(fail(&format!("begins with {what}, so it is not a safetensors file")).with_hint(AGAIN));
        }
        if size > MAX_HEADER || size > length - 8 {
            let what = format!("is not a safetensors file, or is truncated (a header of {size} bytes)");
            return Err(fail(&what).with_hint(AGAIN));
        }
        let mut header = vec![0_u8; size as usize];
        file.read_exact(&mut header).map_err(|cause| fail("cannot be read").with_cause(cause))?;
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

    /// The dtype of a tensor.
    ///
    /// # Errors
    /// A request error that names file and tensor, if it is missing.
    pub fn dtype(&self, name: &str) -> Result<Dtype> {
        self.info(name).map(|info| info.dtype)
    }

    /// Reads a tensor a piece at a time, and passes the place of each piece's first byte, and its bytes, to `put`.
    ///
    /// # Errors
    /// A request error that names file and tensor; errors of `put`.
    pub fn pieces(&mut self, name: &str, mut put: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let (start, end) = self.info(name)?.data_offsets;
        let (mut at, length) = (0, (end - start) as u64);
        while at < length {
            let piece = self.read(name, start as u64 + at, PIECE.min(length - at) as usize)?;
            put(at, &piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The bytes of a tensor, and their dtype.
    fn raw(&mut self, name: &str) -> Result<(Dtype, Vec<u8>)> {
        let TensorInfo { dtype, data_offsets: (start, end), .. } = *self.info(name)?;
        Ok((dtype, self.read(name, start as u64, end - start)?))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| self.fail(name, "is missing"))
    }

    /// Reads `length` bytes of a tensor, from byte `start` of the data on.
    fn read(&mut self, name: &str, start: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A sparse file can be larger than memory.
        bytes
            .try_reserve_exact(length)
            .map_err(|cause| self.fail(name, "does not fit into memory").with_cause(cause))?;
        bytes.resize(length, 0_u8);
        let read =
            self.file.seek(SeekFrom::Start(self.data_start + start)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|cause| self.fail(name, "cannot be read").with_cause(cause))?;
        Ok(bytes)
    }

    fn fail(&self, name: &str, what: &str) -> Error {
        Error::request(format!("{}: tensor `{name}` {what}", self.path.display()))
    }
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
    /// Bytes that are computed when they are written, so that one tensor at a time is in memory.
    Later(Box<dyn Fn() -> Result<Vec<u8>> + 'a>),
    /// As [`Content::Later`], a piece at a time: the function gets the place of the first byte and the number of bytes, both multiples
    /// of the size of an element.
    Pieces(Box<dyn Fn(u64, u64) -> Result<Vec<u8>> + 'a>),
}

/// Most bytes of a piece.
pub const PIECE: u64 = 16 << 20;

impl TensorData<'_> {
    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// Passes its bytes to `write`, in order.
    fn write(&self, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let expected = self.len() as u64;
        let mut written = 0;
        match &self.content {
            Content::Later(compute) => {
                let bytes = compute()?;
                written = bytes.len() as u64;
                write(&bytes)?;
            }
            Content::Pieces(compute) => {
                while written < expected {
                    let length = PIECE.min(expected - written);
                    let bytes = compute(written, length)?;
                    if bytes.len() as u64 != length {
                        break;
                    }
                    write(&bytes)?;
                    written += length;
                }
            }
        }
        match written == expected {
            true => Ok(()),
            false => {
                Err(Error::run(format!("a tensor of shape {:?} has {written} bytes, expected {expected}", self.shape)))
            }
        }
    }
}

/// Writes a safetensors file, with the metadata `format: pt` that Hugging Face libraries write if `mark` says so. The same tensors give
/// the same bytes, those that the library `safetensors` writes.
///
/// # Errors
/// Errors of the file system and of a [`Content`]; a shape that contradicts its bytes.
pub fn write_tensors(path: &Path, tensors: &[(String, TensorData<'_>)], mark: bool) -> Result<()> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::run(format!("cannot write {}", shown(path).display())).with_cause(cause)
    };
    let mut sorted: Vec<&(String, TensorData<'_>)> = tensors.iter().collect();
    sorted.sort_by(|(a, left), (b, right)| right.dtype.cmp(&left.dtype).then(a.cmp(b)));
    let mut end = 0;
    let infos = sorted.iter().map(|(name, tensor)| {
        let start = end;
        end += tensor.len();
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (name.clone(), info)
    });
    let infos = infos.collect();
    let mark = mark.then(|| HashMap::from([("format".to_owned(), "pt".to_owned())]));
    let header = Metadata::new(mark, infos).map_err(|e| failed(e.into()))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| failed(e.into()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = BufWriter::new(File::create(path).map_err(|e| failed(e.into()))?);
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(|e| failed(e.into()));
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    sorted.iter().try_for_each(|(_, tensor)| tensor.write(&mut write))?;
    file.flush().map_err(|e| failed(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a report in the words of a library for a file that was not downloaded.
    #[test]
    fn a_file_of_another_kind_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let pickle = b"\x80\x02\x8a\nl\xfc\x9cF\xf9".as_slice();
        for (bytes, expected) in [
            (b"".as_slice(), "is empty"),
            (b"abc", "has only 3 bytes"),
            (b"<!DOCTYPE html>", "begins with HTML"),
            (b"\n <html><head>", "begins with HTML"),
            (b"{\"error\": 1}", "begins with JSON"),
            (b"Entry not found", "begins with text"),
            (b"PK\x03\x04........", "a file of PyTorch"),
            (pickle, "a file of PyTorch"),
            (b"GGUF\x03\0\0\0\0\0", "a GGUF file"),
            (b"\x40\0\0\0\0\0\0\0{}", "or is truncated (a header of 64 bytes)"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let report = Safetensors::open(&path).err().unwrap().report();
            assert!(report.contains(expected) && report.contains("model.safetensors"), "{expected}: {report}");
            assert!(report.contains("download or copy the file again") && !report.contains("buffer"), "{report}");
        }
    }

    /// Catches bytes that differ from the library's, pieces out of order or with a gap, and a tensor that is too short.
    #[test]
    fn files_are_those_of_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let long: Vec<u8> = (0..PIECE + 12).map(|i| (i % 251) as u8).collect();
        let short = vec![7_u8; 6];
        let shape = vec![long.len() / 4];
        for mark in [false, true] {
            let piece = |at: u64, length: u64| Ok(long[at as usize..(at + length) as usize].to_vec());
            let data = |dtype, shape: &[usize], content| TensorData { dtype, shape: shape.to_vec(), content };
            let tensors = [
                ("b".to_owned(), data(Dtype::BF16, &[3, 1], Content::Later(Box::new(|| Ok(short.clone()))))),
                ("c".to_owned(), data(Dtype::F32, &shape, Content::Pieces(Box::new(piece)))),
                ("a".to_owned(), data(Dtype::F32, &[], Content::Later(Box::new(|| Ok(vec![1; 4]))))),
            ];
            write_tensors(&ours, &tensors, mark).unwrap();
            let view = |dtype, shape: &[usize], bytes| {
                safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap()
            };
            let all = [
                ("a", view(Dtype::F32, &[], &[1, 1, 1, 1])),
                ("b", view(Dtype::BF16, &[3, 1], &short)),
                ("c", view(Dtype::F32, &shape, &long)),
            ];
            let mark = mark.then(|| HashMap::from([("format".to_owned(), "pt".to_owned())]));
            safetensors::serialize_to_file(all, mark, &theirs).unwrap();
            assert!(std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap());
        }
        let wrong =
            TensorData { dtype: Dtype::F32, shape: vec![2], content: Content::Later(Box::new(|| Ok(vec![1; 4]))) };
        assert!(write_tensors(&ours, &[("a".to_owned(), wrong)], true).is_err());
    }
}
