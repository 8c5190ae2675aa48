//! Random changes to valid input, for tests of code that reads untrusted files. Every case must end, with a result
//! or a named error. The changes follow from a seed, so that a case can be repeated: `TELOS_FUZZ_SEED=N cargo test
//! ...` runs only the case of that seed, `TELOS_FUZZ=N` runs N cases instead of the usual number.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use telos_random::SplitMix64;

/// A case that takes longer than this, by the clock, counts as one that does not end: far longer than the slowest
/// one takes on a busy machine.
const LONGEST: Duration = Duration::from_secs(600);
/// The default stack size of a thread in Rust's standard library; cases run on threads with this stack.
const STACK: usize = 2 << 20;

/// Processor time of this thread: other load on the machine does not count.
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A random number generator.
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(SplitMix64::new(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn choice<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers that often cause errors.
pub const NUMBERS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "2",
    "255",
    "65535",
    "65536",
    "100000",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "170141183460469231731687303715884105727",
    "1e308",
    "0.1",
    "-9223372036854775808",
];

/// A member of `corpus` with one to four changes, mostly one or two; `words` are inserted.
pub fn mutated(random: &mut Random, corpus: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut bytes = random.choice(corpus).clone();
    for _ in 0..1 + random.below(4).min(random.below(4)) {
        change(random, &mut bytes, corpus, words);
    }
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str]) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let span = bytes[at..end].repeat(1 + random.below(40));
            bytes.splice(at..at, span);
        }
        4 => {
            let other = random.choice(corpus);
            let from = random.below(other.len() + 1);
            let to = (from + random.below(200)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        5 => {
            let digits = |byte: &u8| byte.is_ascii_digit();
            let start = bytes[at..].iter().position(digits).map_or(at, |more| at + more);
            let length = bytes[start..].iter().take_while(|byte| digits(byte)).count();
            bytes.splice(start..start + length, random.choice(&NUMBERS).bytes());
        }
        6 => {
            let (open, close) = *random.choice(&[
                ("(", ")"),
                ("[", "]"),
                ("{", "}"),
                ("not ", ""),
                ("-", ""),
                ("{% if 1 %}", "{% endif %}"),
            ]);
            let times = 1 + random.below(120);
            bytes.splice(end..end, close.repeat(times).bytes());
            bytes.splice(at..at, open.repeat(times).bytes());
        }
        _ => {
            bytes.splice(at..at, random.choice(words).bytes());
        }
    }
}

/// Runs `case` for many seeds and counts its results by name. `usual` is the number of cases if `TELOS_FUZZ` is not
/// set. A case that returns an error or takes too long fails the test. To find a case that ends the process, set
/// `TELOS_FUZZ_TRACE=1`, which prints each seed.
pub fn run(name: &str, usual: u64, case: impl Fn(&mut Random) -> Result<&'static str, String> + Send + 'static) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, rounds) = match number("TELOS_FUZZ_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("TELOS_FUZZ").unwrap_or(usual)),
    };
    let trace = std::env::var_os("TELOS_FUZZ_TRACE").is_some();
    let (send, receive) = mpsc::channel();
    let work = move || {
        for seed in first..first + rounds {
            if trace {
                eprintln!("seed {seed}");
            }
            let result = case(&mut Random::new(seed));
            if send.send((seed, result)).is_err() {
                return;
            }
        }
    };
    let worker = std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap();
    let (mut counts, mut failed) = (BTreeMap::<&str, u64>::new(), Vec::new());
    let (mut seed, start, mut slowest) = (first, Instant::now(), Duration::ZERO);
    let mut last = Instant::now();
    loop {
        match receive.recv_timeout(LONGEST) {
            Ok((done, result)) => {
                slowest = slowest.max(last.elapsed());
                last = Instant::now();
                seed = done + 1;
                match result {
                    Ok(kind) => *counts.entry(kind).or_default() += 1,
                    Err(what) => failed.push(format!("TELOS_FUZZ_SEED={done}: {what}")),
                }
            }
            Err(RecvTimeoutError::Timeout) => panic!("{name}: the case TELOS_FUZZ_SEED={seed} does not end"),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    println!("{name}: {rounds} cases in {:.1?}, the slowest in {slowest:.1?}: {counts:?}", start.elapsed());
    assert!(worker.join().is_ok(), "{name}: the case TELOS_FUZZ_SEED={seed} panics");
    assert!(failed.is_empty(), "{name}: {} failed:\n{}", failed.len(), failed.join("\n"));
}
