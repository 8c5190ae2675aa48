//! The header of a GGUF file: metadata and the table of tensors (versions 2 and 3, little-endian; the specification is
//! `docs/gguf.md` of ggml). Every length is compared with the file before memory is reserved for it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::quants::{self, TensorType};
use crate::data::error::{DataError, Result};
use crate::data::reading::foreign;
use crate::decimals::counted;
use crate::files;

/// Longest header in bytes. The largest published ones, with 256 thousand tokens, have about 20 MB.
const LONGEST_HEADER: u64 = 1 << 27;
/// Most elements of a list.
const MOST_ELEMENTS: u64 = 1 << 24;
/// Most keys, and most tensors.
const MOST_ENTRIES: u64 = 1 << 16;
/// Most bytes of a name.
const LONGEST_NAME: u64 = 1 << 12;
/// Most elements of a tensor: what other limits on sizes assume cannot overflow.
const MOST_VALUES: u64 = 1 << 40;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An integer.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of numbers or flags.
    Numbers(Vec<f64>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Texts(texts) => write!(f, "a list of {}", counted(texts.len(), "text")),
            Value::Numbers(numbers) => write!(f, "a list of {}", counted(numbers.len(), "number")),
        }
    }
}

/// An entry of the table of tensors.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Its sizes, the slowest first: rows, columns. The file has them the other way round.
    pub shape: Vec<usize>,
    /// Its type.
    pub kind: TensorType,
    /// Number of elements.
    pub elements: u64,
    /// Its first byte in the file.
    pub start: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The header of a file.
#[derive(Debug)]
pub struct Gguf {
    /// The file.
    pub path: PathBuf,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header of a file, and returns it with the open file.
    ///
    /// # Errors
    /// A file that cannot be opened, or whose header is damaged or exceeds a limit: with its place in the file.
    pub fn open(path: &Path) -> Result<(Gguf, File)> {
        let file = files::open(path).map_err(DataError::io("read", path))?;
        foreign::refuse_lfs_pointer(path)?;
        let length = file.metadata().map_err(DataError::io("read", path))?.len();
        let mut reader = Reader { path, inner: BufReader::new(&file), at: 0, length };
        let header = reader.header()?;
        Ok((header, file))
    }
}

struct Reader<'a> {
    path: &'a Path,
    inner: BufReader<&'a File>,
    at: u64,
    length: u64,
}

impl Reader<'_> {
    fn header(&mut self) -> Result<Gguf> {
        if self.length < 4 || self.array("the first four bytes")? != *b"GGUF" {
            return Err(self.fail("is not a GGUF file: it does not begin with \"GGUF\""));
        }
        let version = self.u32("the version")?;
        match version {
            2 | 3 => {}
            _ if matches!(version.swap_bytes(), 1..=3) => return Err(self.fail("is a big-endian GGUF file")),
            _ => return Err(self.fail(&format!("has the GGUF version {version}; versions 2 and 3 are read"))),
        }
        let tensors = self.count("the number of tensors", MOST_ENTRIES)?;
        let keys = self.count("the number of keys", MOST_ENTRIES)?;
        let mut metadata = BTreeMap::new();
        for number in 0..keys {
            let key = self.text(&format!("the name of key {number}"), LONGEST_NAME)?;
            let kind = self.u32(&format!("the type of `{key}`"))?;
            let value = self.value(&key, kind)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(self.fail(&format!("has the key `{key}` twice")));
            }
        }
        let mut table = Vec::new();
        for number in 0..tensors {
            let name = self.text(&format!("the name of tensor {number}"), LONGEST_NAME)?;
            let info = self.tensor(&name)?;
            table.push((name, info));
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(size)) if matches!(size, 8..=65_536) && size % 8 == 0 => *size as u64,
            Some(other) => {
                return Err(self.fail(&format!("`general.alignment` is {other}, expected a multiple of 8 up to 65536")));
            }
        };
        let start = self.at.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for (name, mut info) in table {
            if info.start % alignment != 0 {
                return Err(self.fail(&format!(
                    "tensor `{name}` begins at {}, which is not a multiple of {alignment}",
                    info.start
                )));
            }
            info.start = info.start.saturating_add(start);
            if info.start.saturating_add(info.bytes) > self.length {
                return Err(self.fail(&format!(
                    "tensor `{name}` ends at byte {}, but the file has {}: it is truncated or damaged",
                    info.start.saturating_add(info.bytes),
                    self.length
                )));
            }
            if tensors.insert(name.clone(), info).is_some() {
                return Err(self.fail(&format!("has the tensor `{name}` twice")));
            }
        }
        Ok(Gguf { path: self.path.to_owned(), metadata, tensors })
    }

    fn tensor(&mut self, name: &str) -> Result<TensorInfo> {
        let dimensions = self.u32(&format!("the number of dimensions of tensor `{name}`"))?;
        if !matches!(dimensions, 1..=4) {
            return Err(self.fail(&format!("tensor `{name}` has {dimensions} dimensions, expected 1 to 4")));
        }
        let mut shape = Vec::new();
        let mut elements: u64 = 1;
        for _ in 0..dimensions {
            let size = self.u64(&format!("the sizes of tensor `{name}`"))?;
            let product = elements.checked_mul(size).filter(|product| (1..=MOST_VALUES).contains(product));
            elements = product
                .ok_or_else(|| self.fail(&format!("tensor `{name}` has a size of {size}, which is not possible")))?;
            shape.push(size as usize);
        }
        let columns = shape.first().copied().unwrap_or(1) as u64;
        shape.reverse();
        let number = self.u32(&format!("the type of tensor `{name}`"))?;
        let kind = quants::find(number).map_err(|found| DataError::Unusable {
            path: self.path.to_owned(),
            what: format!("tensor `{name}` is of the type {found}, which is not read"),
            remedy: format!(
                "convert the original model to one of the types {}, or use llama.cpp's `llama-quantize --allow-requantize IN OUT F16`",
                quants::names()
            ),
            source: None,
        })?;
        if !columns.is_multiple_of(kind.elements) {
            return Err(self.fail(&format!(
                "tensor `{name}` has rows of {columns} values, which is not a multiple of {} as {} requires",
                kind.elements, kind.name
            )));
        }
        let bytes = elements / kind.elements * kind.bytes;
        let start = self.u64(&format!("the place of tensor `{name}`"))?;
        Ok(TensorInfo { shape, kind, elements, start, bytes })
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value> {
        let what = format!("the value of `{key}`");
        Ok(match kind {
            STRING => Value::Text(self.text(&what, LONGEST_HEADER)?),
            LIST => {
                let of = self.u32(&what)?;
                let count = self.count(&what, MOST_ELEMENTS)?;
                match (of, width(of)) {
                    (STRING, _) => {
                        // A text has at least the eight bytes of its length.
                        self.has(count.saturating_mul(8), &what)?;
                        let texts = (0..count).map(|_| self.text(&what, LONGEST_HEADER)).collect::<Result<_>>()?;
                        Value::Texts(texts)
                    }
                    (_, Some(width)) => {
                        self.has(count.saturating_mul(width), &what)?;
                        let one = |value| match value {
                            Value::Integer(value) => value as f64,
                            Value::Float(value) => value,
                            Value::Bool(true) => 1.0,
                            _ => 0.0,
                        };
                        let numbers = (0..count).map(|_| self.scalar(&what, of).map(one)).collect::<Result<_>>()?;
                        Value::Numbers(numbers)
                    }
                    (LIST, _) => return Err(self.fail(&format!("`{key}` is a list of lists, which is not read"))),
                    _ => return Err(self.fail(&format!("`{key}` is a list of the unknown type {of}"))),
                }
            }
            _ if width(kind).is_some() => self.scalar(&what, kind)?,
            _ => return Err(self.fail(&format!("`{key}` is of the unknown type {kind}"))),
        })
    }

    fn scalar(&mut self, what: &str, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Integer(i128::from(self.array::<1>(what)?[0])),
            1 => Value::Integer(i128::from(i8::from_le_bytes(self.array(what)?))),
            2 => Value::Integer(i128::from(u16::from_le_bytes(self.array(what)?))),
            3 => Value::Integer(i128::from(i16::from_le_bytes(self.array(what)?))),
            4 => Value::Integer(i128::from(self.u32(what)?)),
            5 => Value::Integer(i128::from(i32::from_le_bytes(self.array(what)?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array(what)?))),
            7 => match self.array::<1>(what)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.fail(&format!("{what} is {other}, expected a flag, 0 or 1"))),
            },
            10 => Value::Integer(i128::from(self.u64(what)?)),
            11 => Value::Integer(i128::from(i64::from_le_bytes(self.array(what)?))),
            12 => Value::Float(f64::from_le_bytes(self.array(what)?)),
            other => return Err(self.fail(&format!("{what} is of the unknown type {other}"))),
        })
    }

    fn text(&mut self, what: &str, longest: u64) -> Result<String> {
        let length = self.count(what, longest)?;
        self.has(length, what)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes, what)?;
        String::from_utf8(bytes).map_err(|_| self.fail(&format!("{what} is not UTF-8 text")))
    }

    fn count(&mut self, what: &str, most: u64) -> Result<u64> {
        let count = self.u64(what)?;
        if count > most {
            return Err(self.fail(&format!("{what} has the length {count}; the limit is {most}")));
        }
        Ok(count)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn array<const SIZE: usize>(&mut self, what: &str) -> Result<[u8; SIZE]> {
        let mut bytes = [0; SIZE];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8], what: &str) -> Result<()> {
        self.has(bytes.len() as u64, what)?;
        self.inner.read_exact(bytes).map_err(DataError::io("read", self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Refuses a header that ends before `bytes` more bytes.
    fn has(&self, bytes: u64, what: &str) -> Result<()> {
        let end = self.at.saturating_add(bytes);
        if end > self.length {
            return Err(
                self.fail(&format!("is truncated or damaged: {what} would end at byte {end} of {}", self.length))
            );
        }
        if end > LONGEST_HEADER {
            return Err(
                self.fail(&format!("has a header of more than {LONGEST_HEADER} bytes: {what} ends at byte {end}"))
            );
        }
        Ok(())
    }

    fn fail(&self, what: &str) -> DataError {
        unusable(self.path, format!("{what} (at byte {} of its header)", self.at))
    }
}

/// The type number of a text.
const STRING: u32 = 8;
/// The type number of a list.
const LIST: u32 = 9;

/// Bytes of a number or flag.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Reads the bytes of a tensor from its file.
///
/// # Errors
/// The file cannot be read, or the tensor does not fit into memory.
pub fn read_tensor(path: &Path, file: &mut File, name: &str, info: &TensorInfo) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(info.bytes as usize).map_err(|cause| DataError::Unusable {
        path: path.to_owned(),
        what: format!("tensor `{name}` does not fit into memory"),
        remedy: "use a smaller model, or a machine with more memory".into(),
        source: Some(cause.into()),
    })?;
    bytes.resize(info.bytes as usize, 0);
    file.seek(SeekFrom::Start(info.start))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(DataError::io("read", path))?;
    Ok(bytes)
}

/// The error for a GGUF file that cannot be used.
pub(super) fn unusable(path: &Path, what: String) -> DataError {
    let remedy = "fetch the file again, or use the model's safetensors version".into();
    DataError::Unusable { path: path.to_owned(), what, remedy, source: None }
}
