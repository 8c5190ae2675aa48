//! Limits on the resources of a render, and the count of what it has used. Work is counted where it is done, also
//! inside one filter or comparison, so that no single expression can take long.

use std::cell::Cell;

use super::error::Evaluated;

/// Bytes of text that count as one value.
pub const TEXT: usize = 32;

/// The limits of a render.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes evaluated, and items and characters copied or compared, in total.
    pub work: usize,
    /// Depth of nested statements, expressions and calls.
    pub depth: usize,
    /// Bytes of a single text, and size of a single value.
    pub length: usize,
}

/// The work that a render may take for any input: some 30 times what the longest known templates take for a short
/// conversation, and about a second in a build without optimisation.
const BASE: usize = 2_000_000;
/// Additional work for each value and each [`TEXT`] bytes of the input. A template takes some 10 to 100 for each.
const PER_VALUE: usize = 1000;
/// Additional work for each pair of messages, since a template may look at every other message while it writes one;
/// in total at most [`OF_PAIRS`].
const PER_PAIR: usize = 50;
/// A few seconds of work.
const OF_PAIRS: usize = 100_000_000;

impl Limits {
    /// The limits for an input of `size` values and `messages` messages. A text counts as one value for each
    /// [`TEXT`] bytes.
    pub fn for_input(size: usize, messages: usize) -> Limits {
        let pairs = messages.saturating_mul(messages).saturating_mul(PER_PAIR).min(OF_PAIRS);
        Limits {
            work: size.saturating_mul(PER_VALUE).saturating_add(pairs).saturating_add(BASE),
            // Python's own limit of 1000 frames stops jinja2 at about the same depth.
            depth: 250,
            // A text that contains all of the input, each byte written as `\\uXXXX`, plus 16 MB.
            length: size.saturating_mul(6 * TEXT).saturating_add(1 << 24),
        }
    }
}

/// The end of an error that names a limit.
pub const REMEDY: &str = "; correct the template, or give another one";

/// Counts the work of a render.
pub struct Meter {
    pub limits: Limits,
    work: Cell<usize>,
}

impl Meter {
    pub fn new(limits: Limits) -> Meter {
        Meter { limits, work: Cell::new(0) }
    }

    /// Counts work.
    ///
    /// # Errors
    /// The limit is exceeded.
    pub fn spend(&self, work: usize) -> Evaluated<()> {
        let done = self.work.get().saturating_add(work);
        self.work.set(done);
        if done > self.limits.work {
            return Err(format!(
                "the template takes more than {} steps, the limit for an input of this size: it does not end, or does far more than \
                 write a conversation{REMEDY}",
                self.limits.work
            ));
        }
        Ok(())
    }

    /// Refuses a text longer than the limit, and counts creating it as work.
    pub fn fits(&self, length: usize) -> Evaluated<()> {
        self.grows(length, length)
    }

    /// As [`Meter::fits`], for a text that grows by `more` bytes without copying the rest.
    pub fn grows(&self, length: usize, more: usize) -> Evaluated<()> {
        if length > self.limits.length {
            let most = self.limits.length;
            return Err(format!(
                "the template makes a text longer than {most} bytes, the limit for an input of this size{REMEDY}"
            ));
        }
        self.spend(more / TEXT)
    }

    /// Counts the creation of a list, which takes more memory than a text of the same length.
    pub fn list(&self, items: usize) -> Evaluated<()> {
        if items > self.limits.length {
            let most = self.limits.length;
            return Err(format!(
                "the template makes a list of more than {most} items, the limit for an input of this size{REMEDY}"
            ));
        }
        self.spend(items / 4)
    }
}
