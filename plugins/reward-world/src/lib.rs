//! The gold reward of the quickstart world: 1 for exactly the right answer, up to 0.6 for the right one among other words, 0 for
//! anything else. The rule is [`telos_world::gold`], which uses only the prompt's text. With it come two parts, `right` and `terse`,
//! and a reward of segments: each of the answer's n words that is right so far has 1/n ([`telos_world::right_so_far`]).

use plugin_api::prelude::*;
use telos_world::{gold, right_so_far};

/// The true reward of a completion.
pub struct World;

impl RewardPlugin for World {
    type Options = ();

    fn manifest() -> RewardManifest {
        RewardManifest {
            summary: "The true reward of the quickstart world, from the prompt's text: 0 to 1".into(),
            parts: vec![
                RewardPart::new("right", "1 for the right answer, also among other words; else 0"),
                RewardPart::new("terse", "1 for exactly the right answer, else 0"),
            ],
            spans: true,
            ..Default::default()
        }
    }

    fn create((): ()) -> Result<Self> {
        Ok(World)
    }
}

impl Reward for World {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        samples
            .iter()
            .map(|sample| gold(&sample.prompt, &sample.completion).ok_or_else(|| foreign(&sample.prompt)))
            .collect()
    }

    fn rate(&self, samples: &[Sample]) -> Result<Vec<Rating>> {
        let rating = |(sample, score): (&Sample, f64)| {
            let right = right_so_far(&sample.prompt, &sample.completion);
            let (words, count) = right.ok_or_else(|| foreign(&sample.prompt))?;
            let part = |name: &str, holds: bool| (name.to_owned(), f64::from(u8::from(holds)));
            let value = 1.0 / count as f64;
            Ok(Rating {
                score,
                parts: vec![part("right", score > 0.0), part("terse", score == 1.0)],
                spans: words.into_iter().map(|(start, end)| Span { start, end, value }).collect(),
            })
        };
        samples.iter().zip(self.score(samples)?).map(rating).collect()
    }
}

fn foreign(prompt: &str) -> Error {
    Error::invalid(format!("{prompt:?} is not an instruction of the quickstart world; score it by another reward"))
}

export_reward!("world", World);
