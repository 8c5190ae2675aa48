//! Rewards that break one law each.

use plugin_api::prelude::*;

/// How the score is computed.
mod way {
    /// By how many other completions of the batch are shorter.
    pub const RANK: u8 = 1;
    /// From the first byte, sliced as if it were a character.
    pub const BYTES: u8 = 2;
    /// By a column that is not declared.
    pub const UNDECLARED: u8 = 3;
}

/// A reward with a mistake.
pub struct Scores<const WAY: u8>;

impl<const WAY: u8> RewardPlugin for Scores<WAY> {
    type Options = ();

    fn manifest() -> RewardManifest {
        RewardManifest { summary: "A score with a mistake, for tests".into(), ..Default::default() }
    }

    fn create((): ()) -> Result<Self> {
        Ok(Scores)
    }
}

impl<const WAY: u8> Reward for Scores<WAY> {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        let one = |sample: &Sample| match WAY {
            way::RANK => Ok(samples.iter().filter(|s| s.completion.len() < sample.completion.len()).count() as f64),
            way::BYTES if sample.completion.is_empty() => Ok(0.0),
            way::BYTES => Ok(f64::from(u8::from(&sample.completion[..1] == "4"))),
            _ => sample.number("target").ok_or_else(|| Error::new(Code::ARRAY, "the row has no column `target`")),
        };
        samples.iter().map(one).collect()
    }
}

export_reward!("rank", Scores<{ way::RANK }>);
export_reward!("bytes", Scores<{ way::BYTES }>);
export_reward!("undeclared-column", Scores<{ way::UNDECLARED }>);
