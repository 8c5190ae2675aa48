//! Threads that run one job at a time together with the calling thread.
//!
//! Kernels are short, and waking a thread that sleeps takes 50 to 100 microseconds on a virtual machine. So a thread that has
//! finished waits for the next job awake for [`SPINS`] rounds before it sleeps. The calling thread does not wait for threads that
//! have not begun a job when its tasks are done.
//!
//! Waking also takes time of the thread that wakes: about 7 microseconds for each thread. So every thread wakes only [`WOKEN`]
//! others, which wake the next ones, before its own part of the job.

use std::{
    any::Any,
    hint::spin_loop,
    mem::forget,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle, Thread, park, yield_now},
};

/// Rounds for which a thread waits awake: about 25 microseconds.
const SPINS: usize = 600;

/// Threads that a thread wakes: thread n wakes `WOKEN` n + 1 and those that follow. More would delay its own work, and fewer the
/// last thread that is woken.
const WOKEN: usize = 4;

/// A job: gets the number of the thread.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

/// Threads 1, 2 and so on; the calling thread is number 0.
pub struct Pool {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    /// Held while a job runs.
    busy: Mutex<()>,
}

/// What the threads share.
struct Gate {
    /// The job's number times [`JOB`], [`OPEN`] while threads may begin it, and the number of threads that run it.
    state: AtomicUsize,
    /// The address of the [`Job`], valid while the state is open or a thread runs it.
    job: AtomicPtr<()>,
    /// The highest number of a thread that may run the job.
    highest: AtomicUsize,
    /// The threads, from number 1 on.
    threads: OnceLock<Vec<Thread>>,
    /// Set when the pool is dropped.
    stop: AtomicBool,
    /// The first panic of a job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

const OPEN: usize = 1 << 15;
const JOB: usize = 1 << 16;
const RUNNING: usize = OPEN - 1;

impl Pool {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// If the system refuses one.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let gate = Arc::new(Gate {
            state: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            highest: AtomicUsize::new(0),
            threads: OnceLock::new(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Pool { gate, threads: Vec::new(), busy: Mutex::new(()) };
        for number in 1..=threads.min(RUNNING) {
            let gate = Arc::clone(&pool.gate);
            let name = format!("candle-{number}");
            pool.threads.push(Builder::new().name(name).spawn(move || gate.serve(number))?);
        }
        pool.gate.threads.get_or_init(|| pool.threads.iter().map(|thread| thread.thread().clone()).collect());
        Ok(pool)
    }

    /// Runs the job on the calling thread and on at most `others` more, those with the lowest numbers. Every thread runs it once at
    /// most; the calling thread alone must be able to finish it. If another job is running, the calling thread runs this one alone.
    pub fn run(&self, others: usize, job: Job<'_>) {
        let Ok(busy) = self.busy.try_lock() else { return job(0) };
        let gate = &*self.gate;
        gate.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        gate.highest.store(others, Ordering::Relaxed);
        // Before this no thread is running, so the count is 0.
        let state = gate.state.load(Ordering::Relaxed);
        gate.state.store((state & !RUNNING).wrapping_add(JOB) | OPEN, Ordering::Release);
        gate.wake_after(0);
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        gate.state.fetch_and(!OPEN, Ordering::Relaxed);
        // The job and what it refers to must outlive the threads that run it.
        let mut spins = 0;
        while gate.state.load(Ordering::Acquire) & RUNNING != 0 {
            spins += 1;
            if spins < SPINS { spin_loop() } else { yield_now() }
        }
        let others = gate.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Before the panic goes on, so that the lock is not poisoned.
        drop(busy);
        match (own, others) {
            (Err(panic), others) => {
                // Its destructor may panic too.
                forget(others);
                resume_unwind(panic)
            }
            (Ok(()), Some(panic)) => resume_unwind(panic),
            (Ok(()), None) => {}
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gate.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // Panics of jobs are caught.
            let _ = thread.join();
        }
    }
}

impl Gate {
    /// A thread's life.
    fn serve(&self, number: usize) {
        let (mut last, mut spins) = (0, 0);
        while !self.stop.load(Ordering::Acquire) {
            // Acquire: `highest` is then that of this job or of a later one.
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state / JOB != last && number <= self.highest.load(Ordering::Relaxed) {
                // Fails if the job has ended or another thread has begun it meanwhile.
                if self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    (last, spins) = (state / JOB, 0);
                    self.wake_after(number);
                    self.work(number);
                    self.state.fetch_sub(1, Ordering::Release);
                }
            } else if spins < SPINS {
                spins += 1;
                spin_loop();
            } else {
                // Returns at once if the thread has been woken since it last slept, so no job is missed.
                park();
                spins = 0;
            }
        }
    }

    /// Wakes the threads that thread `number` wakes. The job may have ended: they then sleep again.
    fn wake_after(&self, number: usize) {
        let Some(threads) = self.threads.get() else { return };
        let last = self.highest.load(Ordering::Relaxed).min(threads.len());
        // Thread n has index n - 1.
        let first = WOKEN * number;
        threads.iter().take(last).skip(first).take(WOKEN).for_each(Thread::unpark);
    }

    fn work(&self, number: usize) {
        let job: *const Job<'_> = self.job.load(Ordering::Relaxed).cast_const().cast();
        // SAFETY: `Pool::run` stored the address before it opened the gate, and returns only after this thread has left.
        let job = unsafe { *job };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(number))) {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            match *first {
                None => *first = Some(panic),
                // Its destructor may panic too, and the caller would then wait for this thread for ever.
                Some(_) => forget(panic),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a job that runs twice on a thread, threads that are not awaited, and a wake-up that is lost.
    #[test]
    fn every_task_runs_once_before_the_job_ends() {
        let pool = Pool::new(3).unwrap();
        for round in 0..3000 {
            let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let began = [0; 4].map(|_| AtomicUsize::new(0));
            pool.run(1 + round % 3, &|thread| {
                began[thread].fetch_add(1, Ordering::Relaxed);
                while let task @ 0..100 = next.fetch_add(1, Ordering::Relaxed) {
                    sum.fetch_add(task, Ordering::Relaxed);
                }
            });
            assert_eq!(sum.load(Ordering::Relaxed), 4950);
            assert!(began.iter().all(|began| began.load(Ordering::Relaxed) <= 1));
            let more = &began[2 + round % 3..];
            assert!(more.iter().all(|began| began.load(Ordering::Relaxed) == 0), "more threads than wanted");
            if round % 500 == 0 {
                // Long enough that the threads sleep.
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        }
    }

    /// Catches a thread that is not woken, so that it stays asleep during all jobs.
    #[test]
    fn all_wanted_threads_are_woken() {
        let pool = Pool::new(30).unwrap();
        for others in [1, 2, 4, 5, 6, 20, 21, 30] {
            // Long enough that the threads sleep.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let (began, start) = (AtomicUsize::new(0), std::time::Instant::now());
            pool.run(others, &|_| {
                began.fetch_add(1, Ordering::Relaxed);
                while began.load(Ordering::Relaxed) <= others && start.elapsed().as_secs() < 30 {
                    yield_now();
                }
            });
            assert_eq!(began.load(Ordering::Relaxed), others + 1);
        }
    }

    /// A payload whose destructor panics.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "a destructor");
        }
    }

    /// Catches a caller that waits for ever, or gets the panic of a destructor, after several threads have panicked.
    #[test]
    fn the_panics_after_the_first_are_not_dropped() {
        let pool = Pool::new(3).unwrap();
        let began = AtomicUsize::new(0);
        let run = || {
            pool.run(3, &|_| {
                began.fetch_add(1, Ordering::Relaxed);
                while began.load(Ordering::Relaxed) < 4 {
                    yield_now();
                }
                std::panic::panic_any(Bomb);
            });
        };
        let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        assert!(payload.is::<Bomb>());
        forget(payload);
        pool.run(3, &|_| {});
    }

    /// Catches a panic that ends the process, that is lost, or after which the pool is stuck; and a job inside a job.
    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2).unwrap();
        for culprit in [0, 1] {
            // Until the thread in question takes part.
            let caught = (0..1000).any(|_| {
                let began = AtomicUsize::new(0);
                let run = || {
                    pool.run(2, &|thread| {
                        began.fetch_add(1, Ordering::Relaxed);
                        let mut waited = 0;
                        while began.load(Ordering::Relaxed) < 3 && waited < 1_000_000 {
                            waited += 1;
                            spin_loop();
                        }
                        assert!(thread != culprit, "thread {thread}");
                    });
                };
                let payload = catch_unwind(AssertUnwindSafe(run)).err();
                payload.is_some_and(|payload| payload.downcast_ref() == Some(&format!("thread {culprit}")))
            });
            assert!(caught, "{culprit}");
        }
        let inner = AtomicUsize::new(0);
        pool.run(0, &|_| {
            pool.run(2, &|_| {
                inner.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert!(inner.load(Ordering::Relaxed) >= 1);
    }
}
