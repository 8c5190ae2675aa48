//! The supervising process, disturbed while it reports a crash and removes a run that has not begun.

use super::{
    cases::{self, Case},
    in_parallel,
    layer::{ACTS, Act, Call, Fault, Layer},
    tally::Tally,
    tree::Tree,
    trial::{Bench, Ending},
};
use crate::support::{lab::Dice, rig::Answer};

/// A run that crashes in step `step`.
fn crashing(step: u64) -> Case {
    let mut case = cases::all().swap_remove(0);
    let objective = format!("objective = {{ plugin = \"segfaults-in-loss\", at_step = {step} }}");
    case.experiment = case.experiment.replace("objective.plugin = \"ce\"", &objective);
    case
}

/// Disturbs the supervising process at every file call, or at `sample` of them; returns the counts and the faults.
pub fn all(sample: Option<usize>) -> (Tally, Vec<String>) {
    let tally = Tally::default();
    let mut wrong = Vec::new();
    for step in [1, 3] {
        let case = crashing(step);
        let (bench, layer) = (Bench::new(&case), Layer::new());
        let mut command = bench.run(false, &[]);
        let answer = Answer::of(Layer::in_parent(layer.trace(&mut command, bench.path())));
        answer.refuses(1, &["SIGSEGV", "segfaults-in-loss"]);
        let (calls, left) = (layer.calls(), Tree::read(&bench.runs()));
        assert!(!calls.is_empty(), "the supervising process has read nothing");
        let applies_to = |act: Act| {
            calls.iter().filter(move |call| act.applies_to(call)).map(move |call| Fault { act, call: call.clone() })
        };
        let mut faults: Vec<Fault> = ACTS.into_iter().flat_map(applies_to).collect();
        if let Some(count) = sample {
            let mut dice = Dice(step);
            faults = (0..count).map(|_| faults[dice.below(faults.len() as u64) as usize].clone()).collect();
        }
        let endings = in_parallel(&faults, |fault| try_one(&case, fault, &left, step));
        for (fault, ending) in faults.iter().zip(endings) {
            tally.add(if step == 1 { "crash before the first step" } else { "crash after a checkpoint" }, &ending);
            if let Ending::Fault(why) = ending {
                let Call { number, kind, path, .. } = &fault.call;
                wrong.push(format!("crash in step {step}, {}, call {number} ({kind} {path}): {why}", fault.act.name()));
            }
        }
    }
    (tally, wrong)
}

fn try_one(case: &Case, fault: &Fault, left: &Tree, step: u64) -> Ending {
    let (bench, layer) = (Bench::new(case), Layer::new());
    let mut command = bench.run(false, &[]);
    let answer = Answer::of(Layer::in_parent(layer.disturb(&mut command, bench.path(), "", fault)));
    if layer.hit().is_none() {
        return Ending::NotReached;
    }
    let wrong = |what: &str, answer: &Answer| Ending::Fault(format!("{what}: {:?}, {}", answer.code, answer.err));
    let killed = fault.act.kills() && answer.code.is_none();
    if answer.err.contains("panicked") || !(killed || answer.code == Some(1) && answer.err.contains("SIGSEGV")) {
        return wrong("the crash is not reported", &answer);
    }
    if step > 1 {
        // Only its checkpoint is compared.
        let differences = Tree::read(&bench.runs()).differences(left);
        return if differences.none() { Ending::Same } else { wrong(&format!("{differences:#?}"), &answer) };
    }
    // A new run starts, whether the old one was removed or not.
    let again = Answer::of(&mut bench.run(false, &[]));
    match again.code {
        Some(1) if again.err.contains("SIGSEGV") => Ending::Same,
        _ => wrong("the run cannot be started again", &again),
    }
}
