//! Preference pairs: the right, terse answer over one with a known flaw.

use crate::Task;
use crate::task::Problem;
use crate::words::NOUNS;
use telos_random::Rng;

/// The flaw of a rejected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Terse and wrong.
    Wrong,
    /// Right, but wrapped in talk.
    Rambling,
    /// Wrong, and wrapped in talk.
    WrongRambling,
}

/// Two answers to one instruction; [`gold`](crate::gold()) scores `chosen` 1 and `rejected` less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The instruction, ending in a newline.
    pub prompt: String,
    /// Right and terse.
    pub chosen: String,
    /// The answer with the flaw `flaw`.
    pub rejected: String,
    /// The rejected answer's flaw.
    pub flaw: Flaw,
    /// The instruction's task.
    pub task: Task,
}

/// An instruction with an answer in segments, each labelled by whether it and all segments before it are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    /// The instruction, ending in a newline.
    pub prompt: String,
    /// The answer's words.
    pub segments: Vec<String>,
    /// For each of them, whether the answer so far is the beginning of the right one.
    pub labels: Vec<bool>,
}

/// An answer to `problem` in segments: with equal chances the right one, or a wrong one of the same length.
pub(crate) fn segments(problem: &Problem, rng: &mut Rng) -> Segments {
    let right = problem.answer();
    let answer = if rng.chance(0.5) { wrong(problem, rng) } else { right.clone() };
    let right: Vec<&str> = right.split(' ').collect();
    let segments: Vec<&str> = answer.split(' ').collect();
    let labels = (1..=segments.len()).map(|end| segments.get(..end) == right.get(..end)).collect();
    Segments { prompt: problem.prompt(), segments: segments.into_iter().map(str::to_owned).collect(), labels }
}

/// A pair for `problem`. With `equal_length` the rejected answer is wrong and as long as the chosen one.
pub(crate) fn draw(problem: &Problem, equal_length: bool, rng: &mut Rng) -> Preference {
    let (flaw, rejected) = if equal_length { (Flaw::Wrong, wrong(problem, rng)) } else { flawed(problem, rng) };
    Preference { prompt: problem.prompt(), chosen: problem.answer(), rejected, flaw, task: problem.task }
}

/// A flawed answer and its flaw.
pub(crate) fn flawed(problem: &Problem, rng: &mut Rng) -> (Flaw, String) {
    // A model soon learns to recognise rambling, but not wrong answers.
    let flaw = rng.pick([Flaw::Wrong, Flaw::Wrong, Flaw::Wrong, Flaw::Wrong, Flaw::Rambling, Flaw::WrongRambling]);
    let answer = match flaw {
        Flaw::Wrong => wrong(problem, rng),
        Flaw::Rambling => ramble(&problem.answer(), rng),
        Flaw::WrongRambling => ramble(&wrong(problem, rng), rng),
    };
    (flaw, answer)
}

/// A wrong answer as long as the right one: two words exchanged, all in another order, one or all from some position replaced; or
/// another number with equally many digits. Some are easier to recognise than others.
fn wrong(problem: &Problem, rng: &mut Rng) -> String {
    let answer = problem.answer();
    if matches!(problem.task, Task::Count | Task::Add) {
        return wrong_number(&answer, rng);
    }
    let right: Vec<&str> = answer.split(' ').collect();
    let mut words = right.clone();
    let at = rng.below(words.len() as u64) as usize;
    match rng.below(4) {
        0 => {
            let other = (at + rng.within(1, words.len() as u64 - 1) as usize) % words.len();
            words.swap(at, other);
        }
        1 => rng.shuffle(&mut words),
        2 => replace(&mut words, at..at + 1, rng),
        _ => replace(&mut words, at..right.len(), rng),
    }
    // A shuffle may leave the order unchanged.
    if words == right {
        replace(&mut words, at..at + 1, rng);
    }
    words.join(" ")
}

/// Replaces words by words that are not in the answer.
fn replace(words: &mut [&str], which: std::ops::Range<usize>, rng: &mut Rng) {
    let mut nouns = NOUNS;
    rng.shuffle(&mut nouns);
    let strangers: Vec<&'static str> = nouns.into_iter().filter(|noun| !words.contains(noun)).collect();
    words[which].iter_mut().zip(strangers).for_each(|(word, stranger)| *word = stranger);
}

/// A number near the right one, with as many digits.
fn wrong_number(answer: &str, rng: &mut Rng) -> String {
    let right: u64 = answer.parse().unwrap_or_default();
    let mut near: Vec<String> = (right.saturating_sub(3)..=right + 3)
        .filter(|&number| number != right)
        .map(|number| number.to_string())
        .filter(|number| number.len() == answer.len())
        .collect();
    rng.shuffle(&mut near);
    near.swap_remove(0)
}

/// Wraps an answer in filler text that contains neither nouns of the language nor numbers.
fn ramble(answer: &str, rng: &mut Rng) -> String {
    match rng.below(5) {
        0 => format!("well, the answer is {answer}."),
        1 => format!("{answer}, i am quite sure."),
        2 => format!("let me think. it is {answer}."),
        3 => format!("that is easy: {answer}, as you see."),
        _ => format!("i would say {answer}. ask me more!"),
    }
}
