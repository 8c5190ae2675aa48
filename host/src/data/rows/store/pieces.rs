//! A piece of bytes for each row, of any length: kept as a log keeps bytes.

use super::log::Log;
use crate::data::error::Result;

/// A piece of bytes for each row.
#[derive(Debug, Default)]
pub struct Pieces {
    log: Log,
    ends: Vec<u64>,
}

impl Pieces {
    /// Adds the piece of the next row.
    ///
    /// # Errors
    /// A full disk.
    pub fn push(&mut self, piece: &[u8]) -> Result<()> {
        self.log.append(piece)?;
        self.ends.push(self.log.end());
        Ok(())
    }

    /// The number of pieces.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    fn bounds(&self, index: usize) -> Option<(u64, usize)> {
        let (begin, end) =
            (index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?, self.ends.get(index)?);
        Some((begin, end.saturating_sub(begin) as usize))
    }

    /// Piece number `index`; empty if there are fewer.
    ///
    /// # Errors
    /// A disk that cannot be read.
    pub fn get(&self, index: usize) -> Result<Vec<u8>> {
        let (begin, length) = self.bounds(index).unwrap_or_default();
        self.log.read(begin, length)
    }

    /// As [`Pieces::get`], in the middle of a step: see [`Log::read_again`]. `None` if there are fewer.
    pub fn again(&self, index: usize) -> Option<Vec<u8>> {
        self.bounds(index).map(|(begin, length)| self.log.read_again(begin, length))
    }
}
