//! The vocabulary of the language, and its grammar for descriptive lines. Independent of tasks.

use telos_random::Rng;

/// The words of the tasks. Each has three letters and a first letter of its own, so that sorting compares one byte and lists of
/// equally many words are equally long.
pub const NOUNS: [&str; 16] =
    ["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen", "jay", "koi", "owl", "pig", "rat", "sow", "tup", "yak"];

const ADJECTIVES: [&str; 8] = ["old", "red", "big", "shy", "wet", "sly", "tiny", "calm"];
const VERBS: [&str; 8] = ["sees", "hears", "likes", "follows", "finds", "greets", "chases", "helps"];
const PLACES: [&str; 6] = ["by the lake", "in the barn", "on the hill", "near the road", "in the wood", "at home"];

/// `count` different nouns in random order; all of them if `count` exceeds their number.
pub(crate) fn distinct_nouns(count: usize, rng: &mut Rng) -> Vec<&'static str> {
    let mut nouns = NOUNS;
    rng.shuffle(&mut nouns);
    nouns.into_iter().take(count).collect()
}

/// One descriptive line: a sentence of a four-rule grammar, without a newline, at most 50 bytes.
pub(crate) fn sentence(rng: &mut Rng) -> String {
    let (a, b) = (rng.pick(NOUNS), rng.pick(NOUNS));
    let (adjective, other, verb, place) =
        (rng.pick(ADJECTIVES), rng.pick(ADJECTIVES), rng.pick(VERBS), rng.pick(PLACES));
    match rng.below(4) {
        0 => format!("the {adjective} {a} {verb} the {other} {b}."),
        1 => format!("one {a} {verb} the {b} {place}."),
        2 => format!("the {a} is {adjective} and the {b} is {other}."),
        _ => format!("{place}, the {adjective} {a} {verb} one {b}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_sort_by_their_first_letter() {
        assert!(NOUNS.windows(2).all(|pair| pair[0].as_bytes()[0] < pair[1].as_bytes()[0]));
        assert!(NOUNS.iter().all(|noun| noun.len() == 3));
    }

    #[test]
    fn nouns_of_one_draw_are_distinct() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..200 {
            let mut drawn = distinct_nouns(5, &mut rng);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 5);
        }
    }
}
