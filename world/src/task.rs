//! The tasks: drawing a problem, writing it as an instruction, reading an instruction back, and solving it.
//!
//! An instruction is one line, `name: arguments`, and ends in a newline:
//!
//! ```text
//! copy: fox ant hen        -> fox ant hen
//! reverse: fox ant hen     -> hen ant fox
//! sort: fox ant hen        -> ant fox hen
//! count ant: fox ant ant   -> 2
//! add: 7 + 15              -> 22
//! ```

use std::fmt;
use std::str::FromStr;

use crate::split::Split;
use crate::words::{NOUNS, distinct_nouns};
use telos_random::Rng;

/// An instruction with its one right answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The instruction, ending in a newline: `"sort: hen ant fox\n"`.
    pub prompt: String,
    /// Right and terse, without a newline: `"ant fox hen"`. The end-of-text token belongs after it.
    pub answer: String,
    /// The task that the instruction sets.
    pub task: Task,
}

/// Words of a list task, fewest and most.
const LIST: (u64, u64) = (2, 4);
/// Words of a list that is counted in, fewest and most.
const COUNTED: (u64, u64) = (2, 5);
/// The largest summand.
const LARGEST: u64 = 20;

/// The task of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Repeat the words.
    Copy,
    /// Give the words from the last to the first.
    Reverse,
    /// Give the words in alphabetical order.
    Sort,
    /// Give the number of times a word is in a list.
    Count,
    /// Give the sum of two numbers.
    Add,
}

impl Task {
    /// Every task, easiest first.
    pub const ALL: [Task; 5] = [Task::Copy, Task::Reverse, Task::Sort, Task::Count, Task::Add];

    /// The task's name in instructions and in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Task::Copy => "copy",
            Task::Reverse => "reverse",
            Task::Sort => "sort",
            Task::Count => "count",
            Task::Add => "add",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = String;

    /// Reads [`Task::name`]; the error names every task.
    fn from_str(name: &str) -> Result<Task, String> {
        Task::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Task::ALL.iter().map(|task| task.name()).collect();
            format!("there is no task \"{name}\"; the tasks are {}", known.join(", "))
        })
    }
}

/// A task with its arguments. `words` is empty for [`Task::Add`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub task: Task,
    pub words: Vec<&'static str>,
    /// The word that [`Task::Count`] looks for.
    pub needle: Option<&'static str>,
    /// The summands of [`Task::Add`].
    pub summands: (u64, u64),
}

impl Problem {
    /// The first problem that `rng` draws on the wanted side of the split. A tenth of the problems of each task is held
    /// out, so this ends soon on either side.
    pub fn draw_in(task: Task, split: Split, rng: &mut Rng) -> Problem {
        loop {
            let problem = Problem::draw(task, rng);
            if Split::of(&problem.prompt()) == split {
                return problem;
            }
        }
    }

    fn draw(task: Task, rng: &mut Rng) -> Problem {
        let (mut words, mut needle, mut summands) = (Vec::new(), None, (0, 0));
        match task {
            Task::Copy | Task::Reverse | Task::Sort => {
                words = distinct_nouns(rng.within(LIST.0, LIST.1) as usize, rng);
            }
            Task::Count => {
                let wanted = rng.pick(NOUNS);
                let length = rng.within(COUNTED.0, COUNTED.1);
                let hits = rng.within(0, length.min(4));
                words = (0..length).map(|i| if i < hits { wanted } else { rng.pick(NOUNS) }).collect();
                rng.shuffle(&mut words);
                needle = Some(wanted);
            }
            Task::Add => summands = (rng.within(0, LARGEST), rng.within(0, LARGEST)),
        }
        Problem { task, words, needle, summands }
    }

    /// The instruction, newline included.
    pub fn prompt(&self) -> String {
        let (task, list, (a, b)) = (self.task, self.list(), self.summands);
        match (task, self.needle) {
            (Task::Add, _) => format!("{task}: {a} + {b}\n"),
            (Task::Count, Some(needle)) => format!("{task} {needle}: {list}\n"),
            _ => format!("{task}: {list}\n"),
        }
    }

    /// Reads an instruction back; `None` for any other text. Space around it does not matter.
    pub fn parse(prompt: &str) -> Option<Problem> {
        let (head, arguments) = prompt.trim().split_once(": ")?;
        let (name, needle) = match head.split_once(' ') {
            Some((name, needle)) => (name, Some(noun(needle)?)),
            None => (head, None),
        };
        let task: Task = name.parse().ok()?;
        if (task == Task::Count) != needle.is_some() {
            return None;
        }
        let (mut words, mut summands) = (Vec::new(), (0, 0));
        if task == Task::Add {
            let (a, b) = arguments.split_once(" + ")?;
            // Refuses what `u64::from_str` would also take, such as a sign, and sums that would not fit.
            summands = (number(a)?, number(b)?);
        } else {
            words = arguments.split(' ').map(noun).collect::<Option<_>>()?;
        }
        Some(Problem { task, words, needle, summands })
    }

    /// The right, terse answer.
    pub fn answer(&self) -> String {
        let mut words = self.words.clone();
        match self.task {
            Task::Copy => {}
            Task::Reverse => words.reverse(),
            Task::Sort => words.sort_unstable(),
            Task::Count => {
                return words.iter().filter(|&&word| Some(word) == self.needle).count().to_string();
            }
            Task::Add => return (self.summands.0 + self.summands.1).to_string(),
        }
        words.join(" ")
    }

    /// The arguments as one list of words.
    pub fn list(&self) -> String {
        self.words.join(" ")
    }

    pub fn example(&self) -> Example {
        Example { prompt: self.prompt(), answer: self.answer(), task: self.task }
    }
}

fn noun(word: &str) -> Option<&'static str> {
    NOUNS.into_iter().find(|&noun| noun == word)
}

/// A number of at most nine plain digits.
fn number(text: &str) -> Option<u64> {
    let plain = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_each_task() {
        for (prompt, answer) in [
            ("copy: fox ant hen\n", "fox ant hen"),
            ("reverse: fox ant hen\n", "hen ant fox"),
            ("sort: fox ant hen\n", "ant fox hen"),
            ("count ant: fox ant ant\n", "2"),
            ("count ant: fox hen\n", "0"),
            ("add: 7 + 15\n", "22"),
        ] {
            assert_eq!(Problem::parse(prompt).map(|problem| problem.answer()).as_deref(), Some(answer), "{prompt}");
        }
    }

    #[test]
    fn text_that_is_not_an_instruction_is_refused() {
        for text in [
            "",
            "sort",
            "sort: ",
            "sort: fox zebra\n",
            "sort ant: fox\n",
            "count: fox\n",
            "add: 3\n",
            "add: +3 + 4\n",
            "add: 99999999999999999999 + 1\n",
            "melt: fox\n",
            "the fox is red.",
        ] {
            assert_eq!(Problem::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn written_pairs_can_be_read_back() {
        let mut rng = Rng::new(&[3]);
        for task in Task::ALL {
            for _ in 0..500 {
                let problem = Problem::draw(task, &mut rng);
                assert_eq!(Problem::parse(&problem.prompt()).as_ref(), Some(&problem));
            }
        }
    }

    #[test]
    fn task_names_parse_and_unknown_ones_are_refused_with_the_list() {
        for task in Task::ALL {
            assert_eq!(task.name().parse(), Ok(task));
        }
        let message = "melt".parse::<Task>().unwrap_err();
        assert!(message.contains("melt") && message.contains("reverse"), "{message}");
    }
}
