//! The quickstart world: small instruction tasks in a small language, generated from a seed, with a gold checker.
//!
//! One world provides every kind of data that training needs:
//!
//! | call | what | for |
//! |---|---|---|
//! | [`World::document`] | running text: descriptive lines and worked examples in many phrasings | pre-training |
//! | [`World::example`] | an instruction and its one right, terse answer | prompts for reinforcement learning, evaluation |
//! | [`World::demonstration`] | the same, but a share of the answers is flawed | instruction tuning |
//! | [`World::preference`] | a right answer over a wrong or a rambling one | reward models, DPO; each alone: labelled answers |
//! | [`World::segments`] | an answer in segments, right up to some segment, with a label per segment | process reward models |
//! | [`gold()`] | the true reward of any completion, from only the prompt's text | evaluation |
//!
//! Everything is a pure function of (seed, split, index), without state, clock or dependence on the platform. A prompt belongs to
//! the same [`Split`] for every seed, so that pre-training, tuning and evaluation with different seeds never share a held-out
//! prompt. This crate works on strings, without tokenizer and model.

mod gold;
mod preference;
mod prose;
mod split;
mod task;
mod words;

pub use gold::{gold, right_answer, right_so_far};
pub use preference::{Flaw, Preference, Segments};
pub use prose::MAX_DOCUMENT_BYTES;
pub use split::Split;
pub use task::{Example, Task};
pub use words::NOUNS;

use task::Problem;
use telos_random::Rng;

/// The longest instruction in bytes, its closing newline included.
pub const MAX_PROMPT_BYTES: usize = 40;
/// The longest right, terse answer in bytes.
pub const MAX_ANSWER_BYTES: usize = 15;
/// A world: its tasks, and the seed that orders its texts.
#[derive(Clone, Debug)]
pub struct World {
    seed: u64,
    tasks: Vec<Task>,
}

impl World {
    /// A world of `tasks` (all tasks if the list is empty; a task named twice counts once), drawn by `seed`.
    pub fn new(seed: u64, tasks: &[Task]) -> World {
        let tasks = Task::ALL.into_iter().filter(|task| tasks.is_empty() || tasks.contains(task)).collect();
        World { seed, tasks }
    }

    /// The tasks of this world, in the order of [`Task::ALL`].
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Example `index` of `split`. Tasks alternate, so every range of examples holds each equally often.
    pub fn example(&self, split: Split, index: u64) -> Example {
        self.problem(split, index, Purpose::Example).0.example()
    }

    /// The instruction of [`World::example`] with an answer that may be wrong: a `flawed` share of the answers (0 to 1) has the
    /// flaws of rejected answers.
    pub fn demonstration(&self, split: Split, index: u64, flawed: f64) -> Example {
        let (problem, mut rng) = self.problem(split, index, Purpose::Example);
        let example = problem.example();
        if rng.chance(flawed) {
            Example { answer: preference::flawed(&problem, &mut rng).1, ..example }
        } else {
            example
        }
    }

    /// Preference pair `index` of `split`. With `equal_length` the rejected answer is wrong and exactly as long as the chosen one,
    /// so that length carries no information; otherwise it is wrong, rambling, or both, and length does carry information.
    pub fn preference(&self, split: Split, index: u64, equal_length: bool) -> Preference {
        let (problem, mut rng) = self.problem(split, index, Purpose::Preference);
        preference::draw(&problem, equal_length, &mut rng)
    }

    /// An answer in labelled segments, `index` of `split`: the right answer, or a wrong one of the same length, word by word.
    pub fn segments(&self, split: Split, index: u64) -> Segments {
        let (problem, mut rng) = self.problem(split, index, Purpose::Segments);
        preference::segments(&problem, &mut rng)
    }

    /// Document `index` of `split`: one to three lines of running text, at most [`MAX_DOCUMENT_BYTES`] bytes.
    pub fn document(&self, split: Split, index: u64) -> String {
        let mut rng = self.rng(split, index, Purpose::Document);
        prose::document(&self.tasks, split, &mut rng)
    }

    /// A problem on the wanted side, and the generator that drew it, for the caller's further draws.
    fn problem(&self, split: Split, index: u64, purpose: Purpose) -> (Problem, Rng) {
        let mut rng = self.rng(split, index, purpose);
        // `new` never leaves the list empty; the remainder is less than its length.
        let task = self.tasks[(index % self.tasks.len() as u64) as usize];
        (Problem::draw_in(task, split, &mut rng), rng)
    }

    fn rng(&self, split: Split, index: u64, purpose: Purpose) -> Rng {
        Rng::new(&[self.seed, split as u64, purpose as u64, index])
    }
}

/// Separates the random streams of the kinds of data.
#[derive(Clone, Copy)]
enum Purpose {
    Example,
    Preference,
    Document,
    Segments,
}
