//! Follows the quotation marks of a table while it is read: one that is never closed would make one cell of all that follows.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// What is wrong with the quotation marks, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The line on which the cell's quotation mark opens, counted from 1.
    pub opened: usize,
    /// The line of a mark within the cell that something else than the next cell follows; `None` if the cell has no other mark.
    pub within: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A cell begins.
    Start,
    /// In a cell without quotation marks around it.
    Plain,
    /// In a cell that began with a quotation mark.
    Quoted,
    /// After a quotation mark in such a cell: it closes the cell, or it is the first of two.
    Closing,
}

/// Passes on bytes of a table up to the first fault, and then fails.
pub struct Quotes<R> {
    bytes: R,
    separator: u8,
    state: State,
    /// Bytes that were passed on, as far as the beginning matters.
    passed: usize,
    line: usize,
    opened: usize,
    fault: Rc<Cell<Option<Fault>>>,
}

impl<R: Read> Quotes<R> {
    /// Reads `bytes`; what is wrong is put into `fault`.
    pub fn new(bytes: R, separator: u8, fault: Rc<Cell<Option<Fault>>>) -> Quotes<R> {
        Quotes { bytes, separator, state: State::Start, passed: 0, line: 1, opened: 1, fault }
    }

    fn failed(&self, within: Option<usize>) -> io::Error {
        self.fault.set(Some(Fault { opened: self.opened, within }));
        io::ErrorKind::InvalidData.into()
    }

    /// The state after this byte; `None` if it may not follow.
    fn after(&mut self, byte: u8) -> Option<State> {
        let ends = byte == self.separator || matches!(byte, b'\n' | b'\r');
        let state = match (self.state, byte) {
            (State::Quoted, b'"') => State::Closing,
            (State::Quoted, _) => State::Quoted,
            (State::Closing, b'"') => State::Quoted,
            (State::Start, b'"') => {
                self.opened = self.line;
                State::Quoted
            }
            // The byte order mark.
            (State::Start, 0xEF | 0xBB | 0xBF) if self.passed < 3 => State::Start,
            (_, _) if ends => State::Start,
            (State::Closing, _) => return None,
            (_, _) => State::Plain,
        };
        self.line += usize::from(byte == b'\n');
        self.passed = self.passed.saturating_add(1);
        Some(state)
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fault.get().is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let read = self.bytes.read(buffer)?;
        if read == 0 && !buffer.is_empty() && self.state == State::Quoted {
            return Err(self.failed(None));
        }
        for (at, byte) in buffer.iter().take(read).enumerate() {
            match self.after(*byte) {
                Some(state) => self.state = state,
                None => {
                    let error = self.failed(Some(self.line));
                    return if at == 0 { Err(error) } else { Ok(at) };
                }
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<Fault> {
        let found = Rc::new(Cell::new(None));
        let mut whole = Vec::new();
        let result = Quotes::new(text.as_bytes(), b',', found.clone()).read_to_end(&mut whole);
        assert_eq!(result.is_err(), found.get().is_some(), "{text:?}");
        assert!(text.as_bytes().starts_with(&whole));
        found.get()
    }

    /// Catches a table that is refused although its quotation marks are right, and a mark whose line is wrong.
    #[test]
    fn only_unbalanced_marks_are_faults() {
        for right in [
            "a,b\n\"x\",\"y, \"\"z\"\"\n\"\n",
            "\u{FEFF}\"a\",b\r\n\"\",c\"d\r\n",
            "a\r\"b\"",
            "5\" disk,\" x \"\n",
            "",
        ] {
            assert_eq!(fault(right), None, "{right:?}");
        }
        assert_eq!(fault("a,b\nc,\"d\ne,f\n"), Some(Fault { opened: 2, within: None }));
        assert_eq!(fault("a,b\nc,\"d\ne,\"f\"\n"), Some(Fault { opened: 2, within: Some(3) }));
        assert_eq!(fault("\"a\" ,b\n"), Some(Fault { opened: 1, within: Some(1) }));
    }
}
