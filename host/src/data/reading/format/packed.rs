//! Unpacks gzip and Zstandard while reading.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::refusal::refuse;
use crate::data::error::{DataError, Result};

/// A compression that is unpacked while reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip, also several members.
    Gzip,
    /// Zstandard, also several frames.
    Zstandard,
}

/// The largest window of a Zstandard frame, as a power of two: 128 MiB, what `zstd -d` accepts without an option.
const WINDOW: u32 = 27;

impl Packing {
    /// The compression of a file that begins with these bytes.
    pub fn of(head: &[u8]) -> Option<Packing> {
        match head {
            [0x1F, 0x8B, ..] => Some(Packing::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Packing::Zstandard),
            _ => None,
        }
    }

    /// Its name, and the commands that unpack `IN` and test it.
    pub fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Packing::Gzip => ("gzip", "gunzip -k IN", "gunzip -t IN"),
            Packing::Zstandard => ("Zstandard", "zstd -d IN", "zstd -t IN"),
        }
    }

    /// The unpacked content of `bytes`.
    ///
    /// # Errors
    /// A decoder that cannot be made.
    pub fn unpacked<'a>(self, path: &Path, bytes: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Packing::Gzip => Box::new(Members { member: Some(GzDecoder::new(BufReader::new(bytes))) }),
            Packing::Zstandard => {
                let decoder = zstd::Decoder::new(bytes).and_then(|mut decoder| {
                    decoder.window_log_max(WINDOW)?;
                    Ok(decoder)
                });
                Box::new(decoder.map_err(|error| self.damaged(path, &error))?)
            }
        })
    }

    /// Refuses a file that begins with `head` and needs more memory to be unpacked than is granted.
    ///
    /// # Errors
    /// A Zstandard frame with a long window.
    pub fn check_window(self, path: &Path, head: &[u8]) -> Result<()> {
        let most = 1 << WINDOW;
        let window = if self == Packing::Zstandard { window(head).unwrap_or_default() } else { 0 };
        if window <= most {
            return Ok(());
        }
        Err(long_window(path, &format!("needs {} MiB of memory", window >> 20)))
    }

    /// The error for content that cannot be unpacked.
    pub fn damaged(self, path: &Path, error: &std::io::Error) -> DataError {
        // The library's words for a long window, here of a frame after the first one.
        if error.to_string().contains("too much memory") {
            return long_window(path, "of a later frame needs more memory");
        }
        let (name, _, test) = self.names();
        let remedy = format!("download it again; {test} tests whether it is complete");
        refuse(path, &format!("a damaged {name} file ({error})"), &remedy)
    }

    /// The refusal of packed content that must be unpacked once, if `head`, how it begins, is that.
    pub fn refuse_nested(self, path: &Path, head: &[u8]) -> Result<()> {
        let (name, unpack, _) = self.names();
        if let Some(inner) = Packing::of(head) {
            let what = format!("{} within {name}", inner.names().0);
            return Err(refuse(path, &what, &format!("unpack it once: {unpack}")));
        }
        if head.get(257..262) == Some(b"ustar") {
            return Err(refuse(path, &format!("a tar archive within {name}"), "unpack it: tar -xf IN"));
        }
        Ok(())
    }
}

/// The error for a window that needs more memory than is granted.
fn long_window(path: &Path, needs: &str) -> DataError {
    let what = format!("a Zstandard file whose window {needs}; the limit is {} MiB", (1_u64 << WINDOW) >> 20);
    refuse(path, &what, "unpack it (zstd -d --long=31 IN), or compress it again without --long")
}

/// The bytes that the window of a Zstandard frame takes (RFC 8878, 3.1.1.1); `None` if its header is cut off.
fn window(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    if descriptor & 0x20 == 0 {
        let byte = u64::from(*head.get(5)?);
        let base = 1_u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * (byte & 7));
    }
    // A single segment: the window is the content.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let size = head.get(at..at + length)?.iter().rev().fold(0, |size, byte| (size << 8) | u64::from(*byte));
    Some(if length == 2 { size + 256 } else { size })
}

/// The members of a gzip file, one after another. Zeros may follow the last one: tapes and disks fill their blocks with them.
struct Members<R> {
    /// The member that is read; `None` at the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut bytes) = self.member.take().map(GzDecoder::into_inner) else { break };
            match bytes.fill_buf()?.first().copied() {
                None => {}
                Some(0) => zeros(bytes)?,
                Some(_) => self.member = Some(GzDecoder::new(bytes)),
            }
        }
        Ok(0)
    }
}

/// Reads to the end.
///
/// # Errors
/// Another byte than 0.
fn zeros(mut bytes: impl BufRead) -> io::Result<()> {
    loop {
        let length = match bytes.fill_buf()? {
            [] => return Ok(()),
            zeros if zeros.iter().all(|byte| *byte == 0) => zeros.len(),
            _ => {
                let what = "other bytes follow the zeros behind its end";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        };
        bytes.consume(length);
    }
}
