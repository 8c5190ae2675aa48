//! A reward with parts and spans for tests: a quarter for each character of the answer, given in spans of up to three characters.

use plugin_api::prelude::*;

options! {
    /// Options.
    pub struct Config {
        /// A mistake: spans outside of the text, values that are not numbers, a part that is not declared.
        wrong: String = "none".into(), of ["none", "outside", "number", "part"];
    }
}

/// The reward.
pub struct Spelled(Config);

impl RewardPlugin for Spelled {
    type Options = Config;

    fn manifest() -> RewardManifest {
        RewardManifest {
            summary: "A quarter for each character, for tests".into(),
            parts: vec![RewardPart::new("spaces", "The number of spaces")],
            spans: true,
            ..Default::default()
        }
    }

    fn create(config: Config) -> Result<Self> {
        Ok(Spelled(config))
    }
}

impl Reward for Spelled {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        Ok(samples.iter().map(|sample| 0.25 * sample.completion.chars().count() as f64).collect())
    }

    fn rate(&self, samples: &[Sample]) -> Result<Vec<Rating>> {
        let wrong = self.0.wrong.as_str();
        let rating = |(sample, score): (&Sample, f64)| {
            let count = sample.completion.chars().count();
            let span = |start: usize| {
                let end = (start + 3).min(count) + 100 * usize::from(wrong == "outside");
                Span { start, end, value: if wrong == "number" { f64::NAN } else { 0.25 * (end - start) as f64 } }
            };
            let spans = (0..count).step_by(3).map(span).collect();
            let spaces = sample.completion.matches(' ').count() as f64;
            let part = if wrong == "part" { "space" } else { "spaces" };
            Rating { score, parts: vec![(part.to_owned(), spaces)], spans }
        };
        Ok(samples.iter().zip(self.score(samples)?).map(rating).collect())
    }
}

export_reward!("spelled", Spelled);
