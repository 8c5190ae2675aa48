//! Files of a run that are damaged in place: a flipped bit, a truncation, a deletion. Programs that read them must give the same
//! result, refuse them by name, or repair them with a message.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    cases::Case,
    tree::{Tree, files_below},
    trial::{Bench, Ending, Prepared, finish, names},
};
use crate::support::{lab::Dice, rig::Answer};

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit of the byte at this offset is flipped.
    Flip(usize),
    /// The file is truncated to this length.
    Cut(usize),
    /// The file is deleted.
    Delete,
}

impl Damage {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Damage::Flip(_) => "a bit is flipped",
            Damage::Cut(0) => "emptied",
            Damage::Cut(_) => "cut",
            Damage::Delete => "deleted",
        }
    }

    /// All damages that are tried for a file of this length.
    fn all(length: usize, dice: &mut Dice) -> Vec<Damage> {
        let mut found = vec![Damage::Delete];
        if length > 0 {
            let mut drawn = || dice.below(length as u64) as usize;
            found.extend([drawn(), drawn(), 0, length / 2, length - 1].map(Damage::Flip));
            found.extend([0, length / 2, length - 1].map(Damage::Cut));
        }
        found.dedup();
        found
    }

    fn apply(self, file: &Path) {
        let mut bytes = fs::read(file).expect("the file is there");
        match self {
            // The lowest bit: a digit becomes another digit, a letter another letter.
            Damage::Flip(at) => bytes[at] ^= 1,
            Damage::Cut(at) => bytes.truncate(at),
            Damage::Delete => return fs::remove_file(file).expect("the file is removed"),
        }
        fs::write(file, bytes).expect("the file is written");
    }
}

/// How the run is used afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A killed run is resumed.
    Resume,
    /// A finished run is continued with more steps.
    Extend,
    /// Text is generated with the run's model.
    Generate,
    /// Text is generated with the last checkpoint, named by its folder.
    GenerateFromCheckpoint,
    /// Text is evaluated with the run's model.
    Evaluate,
    /// Text is evaluated with the last checkpoint, named by its folder.
    EvaluateCheckpoint,
}

const USES: [Use; 6] =
    [Use::Resume, Use::Extend, Use::Generate, Use::GenerateFromCheckpoint, Use::Evaluate, Use::EvaluateCheckpoint];

impl Use {
    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Use::Resume => "`run --resume` of a killed run",
            Use::Extend => "`run --resume` with more steps",
            Use::Generate => "`generate` from the run",
            Use::GenerateFromCheckpoint => "`generate` from the checkpoint",
            Use::Evaluate => "`eval` of the run",
            Use::EvaluateCheckpoint => "`eval` of the checkpoint",
        }
    }
}

/// A file to damage, the damage, and the use afterwards.
#[derive(Debug, Clone)]
pub struct Spoiled {
    /// Path below the folder of runs.
    pub file: String,
    /// What is done to it.
    pub damage: Damage,
    /// The use afterwards.
    pub then: Use,
}

/// A case with the results of its undamaged uses.
pub struct Spoiler<'a> {
    prepared: &'a Prepared<'a>,
    /// The run with more steps.
    longer: Tree,
    more_steps: String,
    /// The folder of the last run, relative to the folder of runs.
    model: String,
    answers: Vec<(Use, Value)>,
}

impl<'a> Spoiler<'a> {
    /// Runs every use once without damage.
    pub fn new(prepared: &'a Prepared<'a>) -> Spoiler<'a> {
        let case = prepared.case;
        let more_steps = match case.stages.last() {
            None => "train.steps=5".to_owned(),
            Some(stage) => format!("stage.{stage}.train.steps=4"),
        };
        let bench = Bench::with_runs(case, prepared.finished.path());
        Answer::of(&mut bench.run(true, &[&more_steps])).succeeds();
        let longer = Tree::read(&bench.runs());
        let model = case.stages.last().map_or("tiny".to_owned(), |stage| format!("tiny/{stage}"));
        let mut spoiler = Spoiler { prepared, longer, more_steps, model, answers: Vec::new() };
        // A reward model can neither generate answers nor have a loss on text.
        for then in USES.into_iter().filter(|_| case.name != "reward") {
            if let Some(mut command) = spoiler.reading_command(then, &Bench::with_runs(case, prepared.finished.path()))
            {
                let answer = Answer::of(&mut command);
                answer.succeeds();
                spoiler.answers.push((then, figures(&answer)));
            }
        }
        spoiler
    }

    fn checkpoint(&self) -> String {
        let latest = self.prepared.finished.path().join(&self.model).join("checkpoints/LATEST");
        let step = fs::read_to_string(latest).expect("a run that has ended has a checkpoint");
        format!("runs/{}/checkpoints/{}", self.model, step.trim())
    }

    /// The command of a use that only reads; `None` for the others.
    fn reading_command(&self, then: Use, bench: &Bench) -> Option<std::process::Command> {
        let run = format!("runs/{}", self.model);
        let model = match then {
            Use::Resume | Use::Extend => return None,
            Use::Generate | Use::Evaluate => run,
            Use::GenerateFromCheckpoint | Use::EvaluateCheckpoint => self.checkpoint(),
        };
        let generate = ["generate", &model, "--prompt", "1? ", "--max-tokens", "3", "--json", "--logits"];
        let evaluate = ["eval", &model, "--data", "text.txt", "--json", "--per-token"];
        let generates = matches!(then, Use::Generate | Use::GenerateFromCheckpoint);
        Some(bench.command(if generates { &generate } else { &evaluate }))
    }

    /// Everything to try, or `sample` of each use, drawn the same every time.
    pub fn all(&self, sample: Option<usize>) -> Vec<Spoiled> {
        let mut dice = Dice(11);
        let mut found = Vec::new();
        for then in USES {
            if self.reading_command(then, &Bench::new(self.prepared.case)).is_some()
                && !self.answers.iter().any(|(with, _)| *with == then)
            {
                continue;
            }
            let runs = self.begin(then);
            let mut all = Vec::new();
            for file in
                files_below(runs).into_iter().filter(|file| !file.ends_with(".lock") || file.ends_with("/plugins.lock"))
            {
                let length = fs::metadata(runs.join(&file)).expect("a file").len() as usize;
                let damages = Damage::all(length, &mut dice);
                all.extend(damages.into_iter().map(|damage| Spoiled { file: file.clone(), damage, then }));
            }
            match sample {
                None => found.extend(all),
                Some(count) => {
                    found.extend((0..count).map(|_| all[dice.below(all.len() as u64) as usize].clone()));
                }
            }
        }
        found
    }

    fn begin(&self, then: Use) -> &Path {
        if then == Use::Resume { self.prepared.stopped.path() } else { self.prepared.finished.path() }
    }

    /// Damages a file, uses the run and returns the outcome.
    pub fn try_one(&self, spoiled: &Spoiled) -> Ending {
        let Spoiled { file, damage, then } = spoiled;
        let case: &Case = self.prepared.case;
        let bench = Bench::with_runs(case, self.begin(*then));
        let whole = Tree::read(&bench.runs());
        damage.apply(&bench.runs().join(file));
        let spoiled_tree = Tree::read(&bench.runs());
        let path = format!("runs/{file}");
        let (answer, expected) = match self.reading_command(*then, &bench) {
            Some(mut command) => (Answer::of(&mut command), None),
            None => {
                let (sets, expected) = match then {
                    Use::Extend => (vec![self.more_steps.as_str()], &self.longer),
                    _ => (Vec::new(), &self.prepared.whole),
                };
                match finish(case, &bench, &sets) {
                    Ok(answer) => (answer, Some(expected)),
                    Err(answer) => (answer, Some(expected)),
                }
            }
        };
        let wrong = |what: &str| Ending::Fault(format!("{what}: {:?}, {}", answer.code, answer.err));
        if answer.err.contains("panicked") {
            return wrong("a panic");
        }
        match answer.code {
            Some(0) => {}
            Some(1 | 2) if names(&answer.err, &path) => return Ending::Refused,
            Some(1 | 2) => return wrong("the error does not name the file"),
            _ => return wrong("an unknown end"),
        }
        let warned = answer.warns(&path);
        match expected {
            None => {
                let same = self.answers.iter().any(|(with, value)| with == then && *value == figures(&answer));
                match (same, warned) {
                    (_, true) => Ending::Warned,
                    (true, false) => Ending::Same,
                    (false, false) => wrong("other figures without a message"),
                }
            }
            Some(expected) => {
                let now = Tree::read(&bench.runs());
                let differences = now.differences(expected);
                let before = spoiled_tree.file(file);
                if differences.none() {
                    // White space at the end has no meaning.
                    let spoiled = before.map(<[u8]>::trim_ascii_end) != whole.file(file).map(<[u8]>::trim_ascii_end);
                    let replaced = spoiled && now.file(file) != before;
                    return match warned {
                        true => Ending::Warned,
                        false if replaced && guards(file) && *damage != Damage::Delete => {
                            wrong("replaced without a message")
                        }
                        false => Ending::Same,
                    };
                }
                // Other plugins in the receipt, or another value of a key that may change in the experiment: this is reported and
                // recorded.
                let recorded = *file == self.receipt() && answer.err.contains("note: replaced after step")
                    || file.ends_with("experiment.toml") && answer.err.contains("note: changed on resuming");
                let but = |name: &str| now.without(name).differences(&expected.without(name)).none();
                match warned || recorded {
                    // From another checkpoint: the receipt records after which step the run became longer.
                    true if but(file) || (recorded || *then == Use::Extend) && but(&self.receipt()) => Ending::Warned,
                    // No program has read the file, and it is still damaged.
                    false
                        if now.file(file) == before
                            && but(file)
                            && (is_spare(file, &bench) || self.is_done(file, *then)) =>
                    {
                        Ending::Same
                    }
                    true => wrong(&format!("other files, with a word about it: {differences:#?}")),
                    false => wrong(&format!("other files without a message: {differences:#?}")),
                }
            }
        }
    }

    /// Whether a file belongs to a finished stage: later ones use only its model, which is verified.
    fn is_done(&self, file: &str, then: Use) -> bool {
        let stages = self.prepared.case.stages;
        let ended = if then == Use::Resume { stages.len() / 2 } else { stages.len().saturating_sub(1) };
        stages.iter().take(ended).any(|stage| file.starts_with(&format!("tiny/{stage}/")))
    }

    fn receipt(&self) -> String {
        format!("{}/receipt.json", self.model)
    }
}

/// Whether a file defines what the run is: such a file must not be replaced silently.
fn guards(file: &str) -> bool {
    ["plugins.lock", "experiment.toml", "receipt.json"].iter().any(|name| file.ends_with(name))
}

/// Whether the run does not need the file: it belongs to the cache, or to a checkpoint that is not the last one.
fn is_spare(file: &str, bench: &Bench) -> bool {
    let Some((folder, below)) = file.split_once("/checkpoints/") else { return file.starts_with(".cache/") };
    let latest = bench.runs().join(folder).join("checkpoints/LATEST");
    let latest = fs::read_to_string(latest).unwrap_or_default();
    below.starts_with("step-") && !below.starts_with(latest.trim())
}

/// The output of a reading command, without times.
fn figures(answer: &Answer) -> Value {
    let mut value: Value = serde_json::from_str(&answer.out).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.remove("speed");
    }
    value
}
