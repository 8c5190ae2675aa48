//! The gold reward through the contract.

use plugin_api::prelude::*;
use reward_world::World;

fn sample(prompt: &str, completion: &str) -> Sample {
    Sample { prompt: prompt.into(), completion: completion.into(), ..Sample::default() }
}

/// Catches scores in another order than the samples', and prompt and completion exchanged.
#[test]
fn each_sample_gets_the_gold_score_of_the_world() {
    let samples =
        [sample("sort: hen ant\n", "ant hen"), sample("add: 2 + 3\n", "4"), sample("add: 2 + 3\n", "it is 5")];
    let scores = World.score(&samples).unwrap();
    assert_eq!(scores[..2], [1.0, 0.0]);
    assert!(scores[2] > 0.0 && scores[2] < 0.6, "{scores:?}");
}

/// Catches a prompt of another world that is scored as a wrong answer instead of being refused.
#[test]
fn an_unknown_prompt_is_refused_and_quoted() {
    let error = World.score(&[sample("tell me a joke\n", "5")]).unwrap_err();
    assert!(error.message.contains("tell me a joke"), "{error}");
}
