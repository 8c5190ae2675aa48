//! Checks the lengths that a file of Arrow declares before the library reserves memory for them: it would end the process if that is
//! refused.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use arrow_ipc::{Message, RecordBatch, root_as_footer, root_as_message};

use super::limit::most_unpacked;

/// How many bytes one byte of Zstandard unpacks to at most; LZ4 unpacks to fewer.
const MOST_RATIO: u64 = 1 << 16;
/// A packed buffer begins with its unpacked length.
const PREFIX: u64 = 8;
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// What a file ends with.
const LAST: &[u8] = b"ARROW1";

/// The file ends before its content does.
#[derive(Debug, thiserror::Error)]
#[error("the file ends before its content does")]
pub struct CutOff;

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, CutOff)
}

fn length(declared: i64) -> io::Result<u64> {
    u64::try_from(declared).map_err(|_| damaged("a negative length"))
}

/// Checks the packed buffers of a message. `prefix`: the bytes of its body at a place.
fn check(message: &Message<'_>, mut prefix: impl FnMut(u64) -> io::Result<[u8; 8]>) -> io::Result<()> {
    let dictionary = message.header_as_dictionary_batch();
    let batch: Option<RecordBatch<'_>> =
        message.header_as_record_batch().or_else(|| dictionary.and_then(|dictionary| dictionary.data()));
    let Some(batch) = batch.filter(|batch| batch.compression().is_some()) else { return Ok(()) };
    let (body, most) = (length(message.bodyLength())?, most_unpacked());
    let mut total = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let (at, packed) = (length(buffer.offset())?, length(buffer.length())?);
        if at.checked_add(packed).is_none_or(|end| end > body) {
            return Err(damaged("a buffer outside of its message"));
        }
        if packed < PREFIX {
            continue;
        }
        // -1: the buffer is not packed.
        let unpacked = u64::try_from(i64::from_le_bytes(prefix(at)?)).unwrap_or_default();
        total = total.saturating_add(unpacked);
        if unpacked > packed.saturating_mul(MOST_RATIO) || total > most {
            return Err(damaged(&format!("a buffer of {packed} bytes that declares to unpack to {unpacked}")));
        }
    }
    Ok(())
}

/// Checks all messages of a file.
///
/// # Errors
/// Lengths and places that cannot be right.
pub fn check_file(file: &File) -> io::Result<()> {
    let size = file.metadata()?.len();
    let read = |at: u64, length: u64| {
        if at.checked_add(length).is_none_or(|end| end > size) {
            return Err(damaged("a part that lies outside of the file"));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, at).map(|()| bytes)
    };
    let end = size.checked_sub(10).ok_or_else(cut_off)?;
    if read(end + 4, 6)? != LAST {
        return Err(cut_off());
    }
    let footer = length(i32::from_le_bytes(first(&read(end, 4)?)).into())?;
    let footer = read(end.checked_sub(footer).ok_or_else(|| damaged("a footer longer than the file"))?, footer)?;
    let footer = root_as_footer(&footer).map_err(|error| damaged(&format!("the footer: {error}")))?;
    for block in footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten()) {
        let (at, metadata) = (length(block.offset())?, length(block.metaDataLength().into())?);
        let (bytes, body) = (read(at, metadata)?, at.saturating_add(metadata));
        if body.checked_add(length(block.bodyLength())?).is_none_or(|end| end > size) {
            return Err(damaged("a part that lies outside of the file"));
        }
        let begin = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
        let message = bytes.get(begin..).unwrap_or_default();
        let message = root_as_message(message).map_err(|error| damaged(&format!("a message: {error}")))?;
        check(&message, |place| Ok(first(&read(body.saturating_add(place), PREFIX)?)))?;
    }
    (&mut &*file).seek(SeekFrom::Start(0)).map(|_| ())
}

/// The first bytes; zeros if there are fewer.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut own = [0; N];
    own.iter_mut().zip(bytes).for_each(|(own, byte)| *own = *byte);
    own
}

/// A stream, message by message, each checked before it is passed on.
pub struct Messages<R> {
    bytes: R,
    /// The message that is passed on.
    message: Cursor<Vec<u8>>,
}

impl<R: Read> Messages<R> {
    /// Reads `bytes`.
    pub fn new(bytes: R) -> Messages<R> {
        Messages { bytes, message: Cursor::default() }
    }

    /// Appends `length` bytes to `message`; memory is reserved only for bytes that there are.
    fn append(&mut self, message: &mut Vec<u8>, length: u64) -> io::Result<()> {
        if length > most_unpacked() {
            return Err(damaged(&format!("a message of {length} bytes, more than memory can hold")));
        }
        if self.read_up_to(length, message)? == length { Ok(()) } else { Err(cut_off()) }
    }

    /// Appends `length` bytes, or as many as there are. The library takes the error of an unexpected end (of a compressed file) for
    /// the end of the stream, so it becomes another one.
    fn read_up_to(&mut self, length: u64, message: &mut Vec<u8>) -> io::Result<u64> {
        match self.bytes.by_ref().take(length).read_to_end(message) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut_off()),
            read => Ok(read? as u64),
        }
    }

    /// The bytes of the next message; empty at the end. A stream may end between two messages, without a mark.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        match self.read_up_to(4, &mut message)? {
            0 => return Ok(message),
            4 => {}
            _ => return Err(cut_off()),
        }
        if message == CONTINUATION {
            self.append(&mut message, 4)?;
        }
        let begin = message.len();
        let metadata = i32::from_le_bytes(first(message.get(begin - 4..).unwrap_or_default()));
        self.append(&mut message, length(metadata.into())?)?;
        if metadata == 0 {
            return Ok(message);
        }
        let body = message.len();
        let own = root_as_message(message.get(begin..).unwrap_or_default());
        let own = length(own.map_err(|error| damaged(&format!("a message: {error}")))?.bodyLength())?;
        self.append(&mut message, own)?;
        let (head, content) = message.split_at(body);
        let head = root_as_message(head.get(begin..).unwrap_or_default());
        let head = head.map_err(|error| damaged(&format!("a message: {error}")))?;
        check(&head, |at| Ok(first(content.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default())))?;
        Ok(message)
    }
}

impl<R: Read> Read for Messages<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.message.position() >= self.message.get_ref().len() as u64 {
            self.message = Cursor::new(self.next()?);
        }
        self.message.read(buffer)
    }
}
