//! Work in fixed tasks: how kernels use the session's threads without effect on their results.
//!
//! A kernel splits its work into tasks only by sizes and numbers them; threads take the next number until none is left. It does
//! not matter which thread runs a task: a task writes only its own elements, and partial sums are stored per task and combined in
//! order afterwards.

use super::{isa::Isa, pool::Pool};
use plugin_api::{Error, Result};
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// Below this much work (estimated nanoseconds) waking another thread costs more than it saves.
const WORTH_WAKING: usize = 15_000;

/// Elements per task of an elementwise operation.
const SPAN: usize = 8192;

/// A session's threads, their scratch, and its instruction set.
pub struct Parallel {
    /// One thread fewer than the session has: the calling thread works too.
    pool: Option<Pool>,
    threads: usize,
    scratch: Vec<Mutex<Vec<f32>>>,
    /// For what a product packs for all its tasks.
    shared: Mutex<Vec<f32>>,
    isa: Isa,
}

/// The elements of one elementwise task: `len` elements of row `row` that start at column `col`.
#[derive(Clone, Copy)]
pub struct Span {
    /// Row.
    pub row: usize,
    /// First column.
    pub col: usize,
    /// Elements.
    pub len: usize,
}

/// Enlarges the scratch to `len` floats, unless it is as long; its content is lost then.
pub fn grow(scratch: &mut Vec<f32>, len: usize) {
    if scratch.len() < len {
        // The old memory is freed first. The new one is not resident before it is used: the system zeroes it then.
        *scratch = Vec::new();
        *scratch = vec![0.0; len];
    }
}

impl Parallel {
    /// With `threads` threads, the calling one included, and the instructions of `isa`.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(threads: usize, isa: Isa) -> Result<Self> {
        let threads = threads.max(1);
        let pool = match threads {
            1 => None,
            _ => {
                let refused = |e| Error::internal(format!("open: {threads} threads: {e}"));
                Some(Pool::new(threads - 1).map_err(refused)?)
            }
        };
        let scratch = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
        Ok(Parallel { pool, threads, scratch, shared: Mutex::new(Vec::new()), isa })
    }

    /// Number of threads, the calling one included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The session's instruction set.
    pub fn isa(&self) -> &Isa {
        &self.isa
    }

    /// Runs a closure that is marked `#[inline(always)]`, compiled for the session's instruction set.
    #[inline(always)]
    pub fn wide<R>(&self, f: impl FnMut() -> R) -> R {
        self.isa.wide(f)
    }

    /// Runs `tasks` tasks that take about `nanoseconds` in total; `f` gets the task's number.
    pub fn run(&self, tasks: usize, nanoseconds: usize, f: impl Fn(usize) + Sync) {
        self.run_on(tasks, nanoseconds, &|task, _| f(task));
    }

    /// As [`Parallel::run`], with `len` floats of scratch (content undefined) for each running task.
    pub fn run_scratch(&self, tasks: usize, nanoseconds: usize, len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        self.run_on(tasks, nanoseconds, &|task, thread| {
            let mut scratch = self.scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
            grow(&mut scratch, len);
            f(task, &mut scratch[..len]);
        });
    }

    /// Calls `f` with `len` floats (content undefined) that its tasks share. `f` does not ask again.
    pub fn with_shared(&self, len: usize, f: impl FnOnce(&mut [f32])) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        grow(&mut shared, len);
        f(&mut shared[..len]);
    }

    /// Runs over every element of `rows` x `cols`; `dense` if all operands are, so that rows may be joined.
    pub fn spans(&self, rows: usize, cols: usize, dense: bool, picoseconds: usize, f: impl Fn(Span) + Sync) {
        let elements = rows * cols;
        if elements == 0 {
            return;
        }
        let nanoseconds = elements * picoseconds / 1000;
        if dense {
            return self.run(elements.div_ceil(SPAN), nanoseconds, |task| {
                let col = task * SPAN;
                f(Span { row: 0, col, len: SPAN.min(elements - col) });
            });
        }
        self.rows(rows, cols, picoseconds, |row| f(Span { row, col: 0, len: cols }));
    }

    /// Runs over rows of `cols` elements, several to a task.
    pub fn rows(&self, rows: usize, cols: usize, picoseconds: usize, f: impl Fn(usize) + Sync) {
        let nanoseconds = rows * cols * picoseconds / 1000;
        let group = (SPAN / cols.max(1)).max(1);
        self.run(rows.div_ceil(group), nanoseconds, |task| {
            (task * group..rows.min((task + 1) * group)).for_each(&f);
        });
    }

    /// Floats of scratch held: what the threads share, and the largest of their own.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        let len = |scratch: &Mutex<Vec<f32>>| scratch.lock().unwrap_or_else(PoisonError::into_inner).capacity();
        len(&self.shared) + self.scratch.iter().map(len).max().unwrap_or(0)
    }

    /// Frees scratch memory.
    pub fn trim(&mut self) {
        for scratch in self.scratch.iter_mut().chain([&mut self.shared]) {
            *scratch.get_mut().unwrap_or_else(PoisonError::into_inner) = Vec::new();
        }
    }

    fn run_on(&self, tasks: usize, nanoseconds: usize, f: &(dyn Fn(usize, usize) + Sync)) {
        let Some(pool) = self.pool.as_ref().filter(|_| tasks > 1 && nanoseconds >= WORTH_WAKING) else {
            return (0..tasks).for_each(|task| f(task, 0));
        };
        let next = AtomicUsize::new(0);
        let work = |thread: usize| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                f(task, thread);
            }
        };
        // A thread that is woken for less than this comes too late to help.
        pool.run((self.threads.min(tasks) - 1).min(nanoseconds / WORTH_WAKING), &work);
    }
}
