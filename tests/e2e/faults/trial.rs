//! One trial: a run is disturbed, and resumed as a user would resume it. The outcome is one of three good endings or a fault.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use super::{
    cases::Case,
    layer::{Call, Fault, Layer},
    tree::{self, Differences, Tree},
};
use crate::support::{
    lab::with_sets,
    rig::{Answer, telos, test_plugins},
};

/// The outcome of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The disturbed program reached its end, or was killed and resumed, with the same bits as an undisturbed run.
    Same,
    /// As before, but a temporary file or an older checkpoint remains that nothing will remove.
    SameAndLeft,
    /// It was refused with the name of the file; if it was a run, resuming it undisturbed gives the same bits.
    Refused,
    /// It reached its end with a message about the file, and the same bits.
    Warned,
    /// The program never reached the call.
    NotReached,
    /// Anything else.
    Fault(String),
}

/// The start of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Begin {
    /// With an empty folder of runs.
    First,
    /// With the files of a run that was killed before its last steps.
    Resume,
}

impl Begin {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Begin::First => "first run",
            Begin::Resume => "resume",
        }
    }
}

/// A folder with a case's files. Temporary files of telos go to a second folder.
pub struct Bench {
    place: TempDir,
    scratch: TempDir,
}

impl Bench {
    /// With only the files of a case.
    pub fn new(case: &Case) -> Bench {
        let place = super::scratch();
        for (name, content) in case.files() {
            fs::write(place.path().join(name), content).expect("the file is written");
        }
        Bench { place, scratch: super::scratch() }
    }

    /// With the files of a case and a copy of the folder of runs `runs`.
    pub fn with_runs(case: &Case, runs: &Path) -> Bench {
        let bench = Bench::new(case);
        tree::copy(runs, &bench.runs());
        bench
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The folder of runs.
    pub fn runs(&self) -> std::path::PathBuf {
        self.path().join("runs")
    }

    /// `telos` with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = telos(self.path());
        command.env("TMPDIR", self.scratch.path()).args(args).arg("--plugins").arg(test_plugins());
        command
    }

    /// `telos run tiny.toml`.
    pub fn run(&self, resume: bool, sets: &[&str]) -> Command {
        let mut args = with_sets(&["run", "tiny.toml"], sets);
        args.extend(resume.then_some("--resume"));
        self.command(&args)
    }
}

/// What trials of a case start from and are compared with.
pub struct Prepared<'a> {
    /// The case.
    pub case: &'a Case,
    /// The files of an undisturbed run.
    pub whole: Tree,
    /// The folder of runs after an undisturbed run.
    pub finished: TempDir,
    /// The folder of runs after a killed run.
    pub stopped: TempDir,
    /// The calls of a first run and of a resume.
    calls: [Vec<Call>; 2],
}

impl<'a> Prepared<'a> {
    /// Runs the case undisturbed, and killed and resumed.
    pub fn new(case: &'a Case) -> Prepared<'a> {
        let layer = Layer::new();
        let bench = Bench::new(case);
        Answer::of(layer.trace(&mut bench.run(false, &[]), bench.path())).succeeds();
        let (first, whole) = (layer.calls(), Tree::read(&bench.runs()));
        let finished = super::scratch();
        tree::copy(&bench.runs(), finished.path());
        // Between the last two saves of the run, or of the middle stage of a pipeline.
        let within = case.stages.get(case.stages.len() / 2).map_or(String::new(), |stage| format!("/{stage}"));
        let place = format!("runs/tiny{within}/checkpoints/LATEST");
        let saves = first.iter().filter(|call| call.kind == "rename" && call.path == place);
        let save = saves.clone().nth(saves.count().saturating_sub(2)).expect("a save");
        let later = first.iter().find(|call| call.number > save.number + 8 && call.path.ends_with("metrics.jsonl"));
        let bench = Bench::new(case);
        let kill = Fault { act: super::layer::Act::Kill, call: later.expect("a step after the save").clone() };
        let killed = Answer::of(layer.disturb(&mut bench.run(false, &[]), bench.path(), "", &kill));
        killed.refuses(1, &["SIGKILL"]);
        let stopped = super::scratch();
        tree::copy(&bench.runs(), stopped.path());
        Answer::of(layer.trace(&mut bench.run(true, &[]), bench.path())).succeeds();
        let differences = Tree::read(&bench.runs()).differences(&whole);
        assert!(differences.none(), "{}: a killed run differs: {differences:#?}", case.name);
        Prepared { case, whole, finished, stopped, calls: [first, layer.calls()] }
    }

    /// The calls of an undisturbed program.
    pub fn calls(&self, begin: Begin) -> &[Call] {
        &self.calls[usize::from(begin == Begin::Resume)]
    }

    fn bench(&self, begin: Begin) -> Bench {
        match begin {
            Begin::First => Bench::new(self.case),
            Begin::Resume => Bench::with_runs(self.case, self.stopped.path()),
        }
    }

    /// Disturbs one call and returns the outcome.
    pub fn try_fault(&self, begin: Begin, fault: &Fault) -> Ending {
        let (bench, layer) = (self.bench(begin), Layer::new());
        let first = Answer::of(layer.disturb(&mut bench.run(begin == Begin::Resume, &[]), bench.path(), "", fault));
        let Some((_, path)) = layer.hit() else { return Ending::NotReached };
        let wrong = |what: &str| Ending::Fault(format!("{what}: {:?}, {}", first.code, first.err));
        if first.err.contains("panicked") {
            return wrong("a panic");
        }
        let ended = match first.code {
            Some(0) if !fault.act.kills() => true,
            Some(1) if fault.act.kills() && first.err.contains("SIGKILL") => false,
            Some(1 | 2) if !fault.act.kills() => {
                if !names_a_path(&first.err, &path) {
                    return wrong(&format!("the error does not name {path}"));
                }
                false
            }
            _ => return wrong("an unknown end"),
        };
        let warned = first.warns(&path);
        let mut differences = self.differences(&bench);
        // Telos does this by design if a checkpoint cannot be saved, and reports it; a later save replaces it, unless it was the
        // best.
        let continues = ended && first.err.contains("the run continues without this checkpoint");
        if continues && differences.lacks_only_a_checkpoint() {
            return Ending::Warned;
        }
        // A cache that cannot be written costs only time: the run is complete, and a later one computes the missing part again.
        if ended && warned && !differences.none() && differences.lacks_only_caches() {
            return Ending::Warned;
        }
        if ended && !differences.none() && !warned {
            return wrong(&format!("other files without a message: {differences:#?}"));
        }
        if !ended || !differences.none() {
            if let Err(answer) = finish(self.case, &bench, &[]) {
                return wrong(&format!("cannot be resumed: {:?}, {}\nafter", answer.code, answer.err));
            }
            differences = self.differences(&bench);
        }
        if !differences.none() {
            return wrong(&format!("other bits: {differences:#?}\nafter"));
        }
        match (ended, fault.act.kills()) {
            (false, false) => Ending::Refused,
            (true, _) if warned => Ending::Warned,
            _ if differences.left.is_empty() => Ending::Same,
            _ => Ending::SameAndLeft,
        }
    }

    fn differences(&self, bench: &Bench) -> Differences {
        Tree::read(&bench.runs()).differences(&self.whole)
    }
}

/// Completes a disturbed run as a user would: it is resumed if there is something to resume. If telos advises to use or omit
/// `--resume`, this is done once. Returns the last result, or the error after which nothing else can be tried.
pub fn finish(case: &Case, bench: &Bench, sets: &[&str]) -> Result<Answer, Answer> {
    let mut way = Way::of(case, bench);
    loop {
        let answer = Answer::of(&mut bench.run(way.resume, sets));
        if answer.code == Some(0) {
            return Ok(answer);
        }
        if !way.follows(&answer) {
            return Err(answer);
        }
    }
}

/// The next command of a user.
pub struct Way {
    /// With `--resume`.
    pub resume: bool,
    switched: bool,
}

impl Way {
    /// Chosen by the files that exist.
    pub fn of(case: &Case, bench: &Bench) -> Way {
        Way { resume: bench.path().join(case.marker()).is_file(), switched: false }
    }

    /// Switches to the other command if a message advises it, once.
    pub fn follows(&mut self, answer: &Answer) -> bool {
        let others: &[&str] =
            if self.resume { &["leave --resume out", "without --resume"] } else { &["continue it with --resume"] };
        if self.switched || answer.code != Some(2) || !others.iter().any(|other| answer.err.contains(other)) {
            return false;
        }
        (self.resume, self.switched) = (!self.resume, true);
        true
    }
}

impl Answer {
    /// Whether a program that reached its end has reported a problem with this file.
    pub fn warns(&self, path: &str) -> bool {
        let alarms = [
            "warning",
            "cannot",
            "instead",
            "damaged",
            "rebuilt",
            "missing",
            "not there",
            "does not exist",
            "there is no",
        ];
        self.err.lines().any(|line| alarms.iter().any(|alarm| line.contains(alarm)) && names(line, path))
    }
}

/// Whether a message names a file, the target of a temporary one, or its checkpoint.
pub fn names(message: &str, path: &str) -> bool {
    let message = error_of(message);
    let file = path.rsplit('/').next().map_or(path, final_name);
    let checkpoint = path.split('/').map(final_name).find(|part| part.starts_with("step-"));
    message.contains(file) || checkpoint.is_some_and(|checkpoint| message.contains(checkpoint))
}

/// Whether a message names a path. Below the folder of runs any path counts, because the reported call need not be the first that
/// failed; elsewhere only this one.
fn names_a_path(message: &str, path: &str) -> bool {
    path.starts_with("runs") && error_of(message).contains("runs/") || names(message, path)
}

/// The message from the start of the error.
fn error_of(message: &str) -> &str {
    message.find("error:").and_then(|at| message.get(at..)).unwrap_or(message)
}

/// The target of a temporary name: `.tmp-NAME-PID` is NAME.
fn final_name(name: &str) -> &str {
    let middle = name.strip_prefix(".tmp-").and_then(|rest| rest.rsplit_once('-'));
    middle.map_or(name, |(name, _)| name)
}
