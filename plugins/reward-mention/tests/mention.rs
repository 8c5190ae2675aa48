//! The scores of mentions.

use plugin_api::prelude::*;
use reward_mention::{Config, Mention};
use serde_json::{Value, json};

fn create(options: &Value) -> Result<Mention> {
    Mention::create(Config::parse(options.as_object().unwrap())?)
}

fn scores(options: Value, completions: &[&str]) -> Vec<f64> {
    let sample = |text: &&str| Sample { prompt: "the dog".into(), completion: (*text).into(), ..Sample::default() };
    create(&options).unwrap().score(&completions.iter().map(sample).collect::<Vec<_>>()).unwrap()
}

/// Catches the last mention used instead of the first, letters counted as words, a prompt that is read too, and a reward below 0.
#[test]
fn earlier_mentions_score_higher() {
    let options = json!({"words": ["dog"], "within": 4});
    let texts = ["dog", "a dog", " a big red dog and a dog", "a b c d dog", "a b c d e f dog", "", "cat"];
    assert_eq!(scores(options, &texts), [1.0, 0.75, 0.25, 0.0, 0.0, 0.0, 0.0]);
}

/// Catches parts of words, case that matters, punctuation that counts as a word or does not end one, and user text used as a
/// pattern.
#[test]
fn a_mention_is_an_exact_whole_word() {
    let options = json!({"words": ["dog", "C++", "big cat"], "within": 4});
    let texts = ["dogs hotdog", "A DOG!", "\"Dog\"", "- dog", "so C++.", "C+", "dxg", "the big cat", "big dogs, cat"];
    assert_eq!(scores(options, &texts), [0.0, 0.75, 1.0, 1.0, 0.75, 0.0, 0.0, 0.75, 0.0]);
}

#[test]
fn an_empty_list_of_words_is_refused_by_name() {
    for (options, key) in [
        (json!({}), "words"),
        (json!({"words": []}), "words"),
        (json!({"words": ["dog", " "]}), "words"),
        (json!({"words": ["dog"], "within": 0}), "within"),
    ] {
        let error = create(&options).err().unwrap();
        assert!(error.code == Code::OPTION && error.message.contains(key), "{error}");
    }
}
