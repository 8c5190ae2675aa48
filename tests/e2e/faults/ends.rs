//! A pipeline that is killed again and again: at the start, in the saves and at the end of every stage, and at any moment.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    cases, in_parallel,
    layer::{Act, Call, Fault, Layer},
    tree::Tree,
    trial::{Begin, Bench, Prepared, Way, finish},
};
use crate::support::{
    lab::{Dice, Running},
    rig::Answer,
};

/// The place at which a kill is intended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Beginning,
    Save,
    AnyMoment,
    End,
}

const PLACES: [Place; 4] = [Place::Beginning, Place::Save, Place::AnyMoment, Place::End];

impl Place {
    fn name(self) -> &'static str {
        match self {
            Place::Beginning => "a stage's beginning",
            Place::Save => "within a save",
            Place::AnyMoment => "any moment",
            Place::End => "a stage's end",
        }
    }
}

/// The outcomes of many kills.
pub struct Ends {
    pipelines: u64,
    kills: BTreeMap<&'static str, u64>,
    /// Pipelines that ended with other bits, or did not end.
    pub wrong: Vec<String>,
}

impl Ends {
    /// Kills pipelines until `count` kills are reached.
    pub fn of(count: u64) -> Ends {
        let case = cases::pipeline_of_five();
        let start = Instant::now();
        let prepared = Prepared::new(&case);
        // The mean of three runs.
        let usual = start.elapsed() / 3;
        let done = AtomicU64::new(0);
        let seeds: Vec<u64> = (0..count).collect();
        let all = in_parallel(&seeds, |seed| {
            (done.load(Ordering::Relaxed) < count)
                .then(|| Pipeline::new(&prepared, *seed, usual, &done, count).killed())
        });
        let mut ends = Ends { pipelines: 0, kills: BTreeMap::new(), wrong: Vec::new() };
        for (kills, wrong) in all.into_iter().flatten() {
            ends.pipelines += 1;
            kills.into_iter().for_each(|place| *ends.kills.entry(place.name()).or_default() += 1);
            ends.wrong.extend(wrong);
        }
        let kills: u64 = ends.kills.values().sum();
        assert!(kills >= count || !ends.wrong.is_empty(), "only {kills} kills came before the end of their pipeline");
        ends
    }

    /// The counts as a table in Markdown.
    pub fn table(&self) -> String {
        let mut text = "| killed at | kills |\n|---|---|\n".to_owned();
        for (place, kills) in &self.kills {
            text.push_str(&format!("| {place} | {kills} |\n"));
        }
        let (kills, wrong) = (self.kills.values().sum::<u64>(), self.wrong.len());
        let (pipelines, same) = (self.pipelines, self.pipelines - wrong as u64);
        text + &format!(
            "| all | {kills} |\n\n{pipelines} pipelines, of which {same} ended in the same bits: {wrong} faults.\n"
        )
    }
}

/// One pipeline that is killed several times.
struct Pipeline<'a> {
    prepared: &'a Prepared<'a>,
    bench: Bench,
    layer: Layer,
    dice: Dice,
    seed: u64,
    usual: Duration,
    done: &'a AtomicU64,
    count: u64,
}

impl<'a> Pipeline<'a> {
    fn new(prepared: &'a Prepared<'a>, seed: u64, usual: Duration, done: &'a AtomicU64, count: u64) -> Pipeline<'a> {
        let (bench, layer, dice) = (Bench::new(prepared.case), Layer::new(), Dice(seed));
        Pipeline { prepared, bench, layer, dice, seed, usual, done, count }
    }

    /// Kills it in every stage, resumes it each time, and compares the end. Returns where it was killed, and what is wrong.
    fn killed(mut self) -> (Vec<Place>, Option<String>) {
        let mut kills = Vec::new();
        for stage in self.prepared.case.stages {
            for place in PLACES {
                if self.done.load(Ordering::Relaxed) >= self.count {
                    break;
                }
                match self.kill(stage, place) {
                    Ok(true) => {
                        kills.push(place);
                        self.done.fetch_add(1, Ordering::Relaxed);
                    }
                    // It reached its end before.
                    Ok(false) => {}
                    Err(why) => return (kills, Some(format!("seed {}, {stage}, {}: {why}", self.seed, place.name()))),
                }
            }
        }
        let seed = self.seed;
        let wrong = match finish(self.prepared.case, &self.bench, &[]) {
            Err(answer) => {
                Some(format!("seed {seed}, killed at {kills:?}: cannot be resumed: {:?}, {}", answer.code, answer.err))
            }
            Ok(_) => {
                let differences = Tree::read(&self.bench.runs()).differences(&self.prepared.whole);
                (!differences.none()).then(|| format!("seed {seed}, killed at {kills:?}: {differences:#?}"))
            }
        };
        (kills, wrong)
    }

    /// Runs or resumes it until it is killed; returns whether it was killed before it reached its end.
    fn kill(&mut self, stage: &str, place: Place) -> Result<bool, String> {
        let mut way = Way::of(self.prepared.case, &self.bench);
        loop {
            let answer = match self.target(stage, place) {
                Some((part, fault)) => {
                    let mut command = self.bench.run(way.resume, &[]);
                    Answer::of(self.layer.disturb(&mut command, self.bench.path(), &part, &fault))
                }
                None => self.at_any_moment(way.resume),
            };
            match answer.code {
                Some(0) => return Ok(false),
                None => return Ok(true),
                Some(1) if answer.err.contains("SIGKILL") => return Ok(true),
                _ if way.follows(&answer) => {}
                _ => return Err(format!("{:?}, {}", answer.code, answer.err)),
            }
        }
    }

    fn at_any_moment(&mut self, resume: bool) -> Answer {
        let mut running = Running::start(&mut self.bench.run(resume, &[]));
        let most = (self.usual.as_micros() as u64 / 3).max(1);
        thread::sleep(Duration::from_micros(self.dice.below(most)));
        if self.dice.below(2) == 0 {
            running.signal(Signal::KILL)
        } else {
            running.signal_worker(Signal::KILL)
        }
        running.answer()
    }

    /// The paths whose calls are counted, and the call that is hit; `None` for any moment.
    fn target(&mut self, stage: &str, place: Place) -> Option<(String, Fault)> {
        let stage = format!("runs/tiny/{stage}/");
        let part = match place {
            Place::Beginning => stage,
            Place::Save => format!("{stage}checkpoints/.tmp-step"),
            // The files of the last step, their rename, the pointer to them, and the removal of the older checkpoint.
            Place::End => {
                let names = [".tmp-step-00000002", "step-00000002/manifest.json", ".tmp-LATEST", "LATEST", ".removed-"];
                format!("{stage}checkpoints/{}", names[self.dice.below(names.len() as u64) as usize])
            }
            Place::AnyMoment => return None,
        };
        let calls: Vec<&Call> =
            self.prepared.calls(Begin::First).iter().filter(|call| call.path.contains(&part)).collect();
        let most = if place == Place::Beginning { 60.min(calls.len()) } else { calls.len() };
        let number = 1 + self.dice.below(most.max(1) as u64);
        let call = calls.get(number as usize - 1).map(|call| Call { number, ..(*call).clone() })?;
        let act = if Act::Torn.applies_to(&call) && self.dice.below(2) == 0 { Act::Torn } else { Act::Kill };
        Some((part, Fault { act, call }))
    }
}
