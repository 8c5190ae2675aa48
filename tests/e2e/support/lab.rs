//! A folder with a tiny experiment, and helpers for tests of runs: run, kill, resume, read, compare.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::rig::{Answer, telos, test_plugins};

/// A run of a few steps that touches everything: evaluation, samples, checkpoints.
pub const TINY: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[model]
layers = 1
dim = 16
heads = 2
context = 16

[data]
source = "synthetic"
rows = 200

[objective]
plugin = "ce"

[train]
steps = 8
batch = { tokens = 128 }
optimizer = { lr = 1e-2, weight_decay = 0.1 }

[eval]
every = 4
tokens = 512

[checkpoint]
every = 4

[sample]
every = 4
prompts = ["sort: ", "add: "]
max_tokens = 8
"#;

/// A tiny model, wide enough to learn from rows.
pub const SMALL: &str = r#"
seed = 7

[backend]
plugin = "candle"
threads = 1

[model]
layers = 1
dim = 32
heads = 2
context = 48
"#;

/// The rows of `rows.jsonl`.
pub const ROWS: &str = r#"
[data]
source = "jsonl"
path = "rows.jsonl"
held_out = 0.2
"#;

/// A temporary folder with experiments, and runs in `runs`.
pub struct Lab(TempDir);

impl Lab {
    /// An empty folder.
    pub fn new() -> Lab {
        Lab(tempfile::tempdir().expect("a temporary folder"))
    }

    /// One with [`TINY`] as `tiny.toml`.
    pub fn tiny() -> Lab {
        let lab = Lab::new();
        lab.write("tiny.toml", TINY);
        lab
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, content).expect("the file is written");
        path
    }

    /// Telos in this folder, with access to the plugins for tests.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = telos(self.path());
        command.args(args).arg("--plugins").arg(test_plugins());
        command
    }

    /// Runs telos and returns its output.
    pub fn ask(&self, args: &[&str]) -> Answer {
        Answer::of(&mut self.command(args))
    }

    /// `telos run tiny.toml` with `key=value` overrides.
    pub fn run(&self, sets: &[&str]) -> Answer {
        self.ask(&run_args(sets))
    }

    /// The same with `--resume`.
    pub fn resume(&self, sets: &[&str]) -> Answer {
        let mut args = run_args(sets);
        args.push("--resume");
        self.ask(&args)
    }

    /// The report of `telos check FILE --json` with `key=value` overrides; fails unless the experiment is valid.
    #[track_caller]
    pub fn check(&self, file: &str, sets: &[&str]) -> Value {
        let answer = self.ask(&with_sets(&["check", file, "--json"], sets));
        answer.succeeds();
        answer.json()
    }

    /// Starts `telos run tiny.toml` and does not wait for it.
    pub fn start(&self, sets: &[&str], resume: bool) -> Running {
        let mut args = run_args(sets);
        args.extend(resume.then_some("--resume"));
        Running::start(&mut self.command(&args))
    }

    /// The run `tiny`.
    pub fn tiny_run(&self) -> Run {
        Run(self.at("runs/tiny"))
    }

    /// Names of everything below the folder, sorted.
    pub fn everything(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

fn run_args<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    with_sets(&["run", "tiny.toml"], sets)
}

/// These arguments, and `--set` before each of `sets`.
pub fn with_sets<'a>(args: &[&'a str], sets: &[&'a str]) -> Vec<&'a str> {
    args.iter().copied().chain(sets.iter().flat_map(|set| ["--set", *set])).collect()
}

/// The objects of a file with one object per line.
#[track_caller]
pub fn json_lines(path: impl AsRef<Path>) -> Vec<Value> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A run's folder.
pub struct Run(pub PathBuf);

impl Run {
    /// A file's bytes.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap_or_else(|e| panic!("{}: {e}", self.0.join(name).display()))
    }

    /// The lines of a log.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        json_lines(self.0.join(name))
    }

    /// The lines of metrics.jsonl of a kind.
    pub fn metrics(&self, kind: &str) -> Vec<Value> {
        self.lines("metrics.jsonl").into_iter().filter(|line| line["kind"] == kind).collect()
    }

    /// One number of each training step.
    pub fn train(&self, key: &str) -> Vec<f64> {
        self.metrics("train").iter().map(|line| line[key].as_f64().unwrap_or(f64::NAN)).collect()
    }

    /// One number of each evaluation.
    pub fn eval(&self, key: &str) -> Vec<f64> {
        self.metrics("eval").iter().map(|line| line[key].as_f64().unwrap_or(f64::NAN)).collect()
    }

    /// The step that LATEST or BEST names.
    pub fn pointer(&self, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.0.join("checkpoints").join(name)).ok()?;
        text.trim().strip_prefix("step-")?.parse().ok()
    }

    /// Steps that have a checkpoint, ascending.
    pub fn checkpoints(&self) -> Vec<u64> {
        let names = self.checkpoint_names();
        names.iter().filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect()
    }

    /// Whether a save is in progress, or was interrupted.
    pub fn in_a_save(&self) -> bool {
        self.checkpoint_names().iter().any(|name| name.starts_with(".tmp-step"))
    }

    fn checkpoint_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.join("checkpoints")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The run's receipt.
    pub fn receipt(&self) -> Value {
        serde_json::from_slice(&self.bytes("receipt.json")).expect("JSON")
    }

    /// The hash of a checkpoint's weights, from its manifest.
    pub fn weights_sha256(&self, step: u64) -> String {
        let manifest: Value = serde_json::from_slice(&self.saved(step, "manifest.json")).expect("JSON");
        let text = manifest.to_string();
        let after = text.split("model.safetensors").nth(1).and_then(|rest| rest.split("\"sha256\":\"").nth(1));
        after.expect("a hash of the weights")[..64].to_owned()
    }

    /// A checkpoint's file.
    pub fn saved(&self, step: u64, file: &str) -> Vec<u8> {
        self.bytes(&format!("checkpoints/step-{step:08}/{file}"))
    }

    /// Fails unless both runs left the same bits: weights, moments and position of `step`, metrics, samples and histograms.
    #[track_caller]
    pub fn equals(&self, other: &Run, step: u64) {
        for file in ["metrics.jsonl", "samples.jsonl", "histograms.jsonl"] {
            let is_there = |run: &Run| run.0.join(file).exists();
            assert_eq!(is_there(self), is_there(other), "{file}");
            if file == "histograms.jsonl" && !is_there(self) {
                continue;
            }
            let text = |run: &Run| String::from_utf8(run.bytes(file)).expect("UTF-8");
            let (ours, theirs) = (text(self), text(other));
            for (line, (a, b)) in ours.lines().zip(theirs.lines()).enumerate() {
                assert_eq!(a, b, "{file}, line {}", line + 1);
            }
            assert_eq!(ours.lines().count(), theirs.lines().count(), "{file}");
        }
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(self.saved(step, file) == other.saved(step, file), "{file} of step {step} differs");
        }
    }

    /// Fails unless the logs hold each of `steps` training steps once and in order.
    #[track_caller]
    pub fn has_steps(&self, steps: u64) {
        for file in ["metrics.jsonl", "timing.jsonl"] {
            let lines = self.lines(file);
            let seen: Vec<u64> =
                lines.iter().filter(|line| line["kind"] == "train").filter_map(|line| line["step"].as_u64()).collect();
            assert_eq!(seen, (1..=steps).collect::<Vec<_>>(), "{file}");
        }
    }
}

/// A running telos; killed when dropped.
pub struct Running(Option<Child>);

impl Running {
    /// Starts a program and does not wait for it.
    pub fn start(command: &mut Command) -> Running {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running(Some(child.expect("the program starts")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not waited for yet")
    }

    /// Waits until `seen` returns true, or until the program ends: then returns false.
    #[track_caller]
    pub fn until(&mut self, seen: impl Fn() -> bool) -> bool {
        let patience = Instant::now() + Duration::from_secs(120);
        loop {
            if seen() {
                return true;
            }
            if self.child().try_wait().expect("a child").is_some() {
                return false;
            }
            assert!(Instant::now() < patience, "the run makes no progress");
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child().try_wait().expect("a child").is_none()
    }

    /// The most memory that the training process has had so far, in bytes; 0 where it is not known.
    pub fn worker_peak(&mut self) -> u64 {
        let parent = self.child().id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        let peak = |id: &str| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
        };
        children.split_whitespace().filter_map(peak).max().unwrap_or(0)
    }

    /// Sends a signal to the program, which is the supervising process.
    pub fn signal(&mut self, signal: Signal) {
        _ = kill_process(Pid::from_child(self.child()), signal);
    }

    /// Sends a signal to the training process.
    #[cfg(target_os = "linux")]
    pub fn signal_worker(&mut self, signal: Signal) {
        let parent = self.child().id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        for worker in children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            _ = kill_process(worker, signal);
        }
    }

    /// Waits for its end.
    pub fn answer(mut self) -> Answer {
        let output = self.0.take().expect("it was not waited for yet").wait_with_output().expect("a child");
        Answer::from_output(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// Pseudo-random numbers that are the same every time (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        telos_random::step(&mut self.0) % most
    }
}

/// A text of `words` words, always the same.
pub fn some_text(words: usize) -> String {
    const WORDS: [&str; 12] =
        ["the ", "sun ", "moon ", "a ", "river ", "of ", "stars ", "and ", "we ", "sing.\n", "under ", "trees, "];
    let mut dice = Dice(5);
    (0..words).map(|_| WORDS[dice.below(12) as usize]).collect()
}

/// Fails unless both are equal within `tolerance`, relative to the larger.
#[track_caller]
pub fn close(a: f64, b: f64, tolerance: f64, what: &str) {
    let error = (a - b).abs() / a.abs().max(b.abs()).max(1e-300);
    assert!(error <= tolerance, "{what}: {a} and {b} differ by {error:.2e}, more than {tolerance:.0e}");
}
