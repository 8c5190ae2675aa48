//! The gold reward: the true reward of a completion, computed only from the prompt's text and the completion.

use crate::Task;
use crate::task::Problem;
use crate::words::NOUNS;

/// The highest reward of a right answer among other words.
const RAMBLING_CEILING: f64 = 0.6;

/// The true reward of `completion`, in [0, 1]:
///
/// - 1 for exactly the right answer; a space or newline before or after it does not count;
/// - `0.6 * (bytes of the answer / bytes of the completion)` for the right answer among other words;
/// - 0 for anything else.
///
/// Right means that the completion's words of the answer's kind (nouns of the language for lists, numbers for counts and sums) are
/// exactly those of the answer, in order. So several numbers, or an answer given twice, earn nothing.
///
/// `None` if `prompt` is not an instruction of this world: a caller must not treat that as a wrong completion.
pub fn gold(prompt: &str, completion: &str) -> Option<f64> {
    let problem = Problem::parse(prompt)?;
    let answer = problem.answer();
    let completion = completion.trim();
    if completion == answer {
        return Some(1.0);
    }
    let given = completion.split(|c: char| !c.is_alphanumeric()).filter(|word| counts(&problem, word));
    if given.eq(answer.split(' ')) {
        return Some(RAMBLING_CEILING * answer.len() as f64 / completion.len() as f64);
    }
    Some(0.0)
}

/// The right answer to an instruction; `None` for any other text.
pub fn right_answer(prompt: &str) -> Option<String> {
    Problem::parse(prompt).map(|problem| problem.answer())
}

/// The words of `completion` that are right so far, as places of their first characters and of the characters after their last
/// ones: the words of the answer's kind up to the first one that differs from the answer's word at its place. The second number
/// is the answer's number of words.
///
/// `None` if `prompt` is not an instruction of this world.
pub fn right_so_far(prompt: &str, completion: &str) -> Option<(Vec<(usize, usize)>, usize)> {
    let problem = Problem::parse(prompt)?;
    let answer = problem.answer();
    let mut words: Vec<(usize, String)> = vec![(0, String::new())];
    for (at, c) in completion.chars().enumerate() {
        match (c.is_alphanumeric(), words.last_mut()) {
            (true, Some((_, word))) => word.push(c),
            _ => words.push((at + 1, String::new())),
        }
    }
    let given = words.into_iter().filter(|(_, word)| counts(&problem, word));
    let right = given.zip(answer.split(' ')).take_while(|((_, word), expected)| word == expected);
    let places = right.map(|((start, word), _)| (start, start + word.chars().count())).collect();
    Some((places, answer.split(' ').count()))
}

/// Whether a word is of the answer's kind.
fn counts(problem: &Problem, word: &str) -> bool {
    match problem.task {
        Task::Count | Task::Add => is_number(word),
        _ => NOUNS.contains(&word),
    }
}

/// Any word with a digit in it: `7x` must not be ignored as talk next to a right number.
fn is_number(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_right_rambling_and_wrong() {
        let sort = "sort: hen ant\n";
        for (completion, score) in [
            ("ant hen", 1.0),
            (" ant hen\n", 1.0),
            ("hen ant", 0.0),
            ("ant", 0.0),
            ("ant hen ant hen", 0.0),
            ("ant hen hen", 0.0),
            ("", 0.0),
            ("the answer is", 0.0),
            // 7 of 14 bytes: catches a checker that only looks for the answer somewhere, or only at the end.
            ("it is: ant hen", 0.3),
        ] {
            assert_eq!(gold(sort, completion), Some(score), "{completion:?}");
        }
    }

    /// Catches words that count after a wrong one, talk that counts, and places in bytes.
    #[test]
    fn words_are_right_up_to_the_first_wrong_one() {
        let right = |completion| right_so_far("sort: hen ant fox\n", completion).unwrap();
        assert_eq!(right("ant fox hen"), (vec![(0, 3), (4, 7), (8, 11)], 3));
        assert_eq!(right("ant hen fox").0, [(0, 3)]);
        assert_eq!(right("é: ant, so fox").0, [(3, 6), (11, 14)]);
        assert_eq!(right("ant fox hen hen").0.len(), 3);
        assert_eq!(right("hen ant").0, []);
        assert_eq!(right("").0, []);
        assert_eq!(right_so_far("add: 2 + 3\n", "it is 5"), Some((vec![(6, 7)], 1)));
        assert_eq!(right_so_far("melt: fox\n", "fox"), None);
    }

    #[test]
    fn guessing_several_numbers_has_reward_0() {
        assert_eq!(gold("add: 2 + 3\n", "5"), Some(1.0));
        assert_eq!(gold("add: 2 + 3\n", "4 5 6"), Some(0.0));
        assert_eq!(gold("add: 2 + 3\n", "15"), Some(0.0));
        assert_eq!(gold("add: 2 + 3\n", "05"), Some(0.0));
        assert_eq!(gold("add: 2 + 3\n", "5, not 5x"), Some(0.0));
        assert_eq!(gold("count ant: ant hen\n", "ant 1"), Some(0.6 / 5.0));
    }

    #[test]
    fn an_unknown_prompt_has_no_score() {
        assert_eq!(gold("tell me a joke\n", "5"), None);
    }
}
