//! Unpacks gzip and Zstandard while reading.

use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

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
            Packing::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(bytes))),
            Packing::Zstandard => {
                let decoder = zstd::Decoder::new(bytes).and_then(|mut decoder| {
                    decoder.window_log_max(WINDOW)?;
                    Ok(decoder)
                });
                Box::new(decoder.map_err(|error| self.damaged(path, &error))?)
            }
        })
    }

    /// The error for content that cannot be unpacked.
    pub fn damaged(self, path: &Path, error: &std::io::Error) -> DataError {
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
