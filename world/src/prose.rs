//! Running text for pre-training: descriptive lines, and the tasks in many wordings.
//!
//! Only a few lines are in the instruction format, and a document continues after an answer, so that a model of this text has seen
//! the facts but does not follow instructions yet: tuning teaches it to answer and then to stop.

use crate::split::Split;
use crate::task::{Problem, Task};
use crate::words::sentence;
use telos_random::Rng;

/// The longest document in bytes: with its end-of-text token it fits a context of 128 bytes.
pub const MAX_DOCUMENT_BYTES: usize = 127;

/// One to three lines joined by newlines, each on the wanted side of the split.
pub(crate) fn document(tasks: &[Task], split: Split, rng: &mut Rng) -> String {
    let mut text = line(tasks, split, rng);
    for _ in 0..rng.below(3) {
        let next = line(tasks, split, rng);
        if text.len() + 1 + next.len() > MAX_DOCUMENT_BYTES {
            break;
        }
        text.push('\n');
        text.push_str(&next);
    }
    text
}

/// A third of the lines are descriptions; of the rest, one in five is an instruction with its answer.
fn line(tasks: &[Task], split: Split, rng: &mut Rng) -> String {
    if rng.below(3) == 0 {
        loop {
            let text = sentence(rng);
            if Split::of(&text) == split {
                return text;
            }
        }
    }
    // A world has at least one task; the draw is less than their number.
    let task = tasks[rng.below(tasks.len() as u64) as usize];
    // A sentence is on the side of its instruction: its answer must not be learned in another wording.
    let problem = Problem::draw_in(task, split, rng);
    if rng.below(5) == 0 {
        return problem.prompt() + &problem.answer();
    }
    as_sentence(&problem, rng.below(4))
}

/// The problem and its answer as a sentence, in one of four wordings.
fn as_sentence(problem: &Problem, wording: u64) -> String {
    let (list, answer, (a, b)) = (problem.list(), problem.answer(), problem.summands);
    let needle = problem.needle.unwrap_or_default();
    match (problem.task, wording) {
        (Task::Copy, 0) => format!("{list} said again is {answer}."),
        (Task::Copy, 1) => format!("say {list} and i say {answer}."),
        (Task::Copy, 2) => format!("the same as {list} is {answer}."),
        (Task::Copy, _) => format!("we hear {list}, then {answer}."),
        (Task::Reverse, 0) => format!("{list} backwards is {answer}."),
        (Task::Reverse, 1) => format!("turn {list} around and get {answer}."),
        (Task::Reverse, 2) => format!("from the end, {list} is {answer}."),
        (Task::Reverse, _) => format!("the other way, {list} reads {answer}."),
        (Task::Sort, 0) => format!("{list} in order is {answer}."),
        (Task::Sort, 1) => format!("put {list} in order and get {answer}."),
        (Task::Sort, 2) => format!("in order, {list} is {answer}."),
        (Task::Sort, _) => format!("line up {list}: {answer}."),
        (Task::Count, 0) => format!("in {list}, {needle} comes {answer} times."),
        (Task::Count, 1) => format!("look for {needle} in {list} and find {answer}."),
        (Task::Count, 2) => format!("the number of {needle} in {list} is {answer}."),
        (Task::Count, _) => format!("how often is {needle} in {list}? {answer}."),
        (Task::Add, 0) => format!("{a} and {b} make {answer}."),
        (Task::Add, 1) => format!("{a} plus {b} is {answer}."),
        (Task::Add, 2) => format!("the sum of {a} and {b} is {answer}."),
        (Task::Add, _) => format!("if you have {a} and get {b}, you have {answer}."),
    }
}
