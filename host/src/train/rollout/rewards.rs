//! Rewards of answers: reward plugins and trained reward models, each with a weight.

use plugin_api::{
    error::Code,
    reward::{Reward, Sample},
};
use plugin_api_load::LoadedReward;

use super::sampling::Answer;
use crate::{
    config::{Mistakes, experiment::RewardSource},
    data::{Sequence, pack},
    device::Device,
    error::{Error, Result, refusal_text},
    model::{Keep, Model, Outputs},
    objectives::{
        active::failed,
        micro_batch::{at_ends, view},
    },
    runs::breadcrumb,
    setup::Setup,
};

/// All rewards of an experiment.
#[derive(Default)]
pub struct Rewards {
    scorers: Vec<Scorer>,
    clip: Option<f64>,
    /// Positions computed at a time.
    tokens: usize,
}

/// Hint for a column that a row lacks.
const DECLARE: &str =
    "if the reward declares in its manifest the columns that it reads, every row is checked before step 1";

struct Scorer {
    name: String,
    weight: f64,
    kind: Kind,
}

enum Kind {
    Plugin(LoadedReward),
    /// A model's scores minus `mean`, divided by `deviation`.
    Model {
        model: Box<Model>,
        mean: f64,
        deviation: f64,
    },
}

/// One reward's scores.
pub struct Scores {
    /// The reward's name: a plugin's id, or `model`.
    pub name: String,
    /// Its weight in the sum.
    pub weight: f64,
    /// One score per answer.
    pub scores: Vec<f64>,
}

impl Rewards {
    /// Opens the experiment's rewards on `device`. `None` after mistakes, which are collected: a reward model that does not fit, or
    /// has no recorded scores although they are to be normalised.
    ///
    /// # Errors
    /// Failures that are not mistakes, such as a lack of memory.
    pub fn open(setup: &Setup, device: &Device, mistakes: &mut Mistakes) -> Result<Option<Rewards>> {
        let experiment = setup.experiment();
        let mut plugins = setup.rewards.iter();
        let mut scorers: Vec<Scorer> = Vec::new();
        for (index, reward) in experiment.reward.iter().enumerate() {
            let key = setup.loaded.key_of("reward", index);
            let opened = match &reward.source {
                RewardSource::Plugin { plugin } => {
                    let library = plugins.next().ok_or_else(|| Error::run("a reward plugin was not loaded"))?;
                    let reward = breadcrumb::within(plugin, "create", || library.reward(&reward.options));
                    reward.map(|reward| (plugin.clone(), Kind::Plugin(reward))).map_err(Error::from)
                }
                RewardSource::Model { model } => {
                    open_model(setup, &key, device, model, reward.normalise).map(|kind| ("model".to_owned(), kind))
                }
            };
            let Some((name, kind)) = mistakes.check(&key, opened)? else { continue };
            let alike = scorers.iter().filter(|scorer| scorer.name.split('.').next() == Some(name.as_str())).count();
            let name = if alike > 0 { format!("{name}.{alike}") } else { name };
            scorers.push(Scorer { name, weight: reward.weight, kind });
        }
        if scorers.len() < experiment.reward.len() {
            return Ok(None);
        }
        let clip = experiment.rollout.as_ref().and_then(|rollout| rollout.clip);
        Ok(Some(Rewards { scorers, clip, tokens: experiment.train.micro_batch_tokens }))
    }

    /// Returns whether no reward is configured.
    pub fn is_empty(&self) -> bool {
        self.scorers.is_empty()
    }

    /// Limits how many positions reward models compute at a time.
    pub fn compute_at_most(&mut self, tokens: usize) {
        self.tokens = tokens;
    }

    /// Returns how many positions reward models compute at a time.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the rewards' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.scorers.iter().map(|scorer| scorer.name.as_str())
    }

    /// Returns whether any reward has a non-zero weight.
    pub fn any_weighted(&self) -> bool {
        self.scorers.iter().any(|scorer| scorer.weight != 0.0)
    }

    /// Returns each reward's scores of the answers.
    ///
    /// # Errors
    /// Errors of plugins; a score that is not finite.
    pub fn score(&self, answers: &[Answer]) -> Result<Vec<Scores>> {
        let samples: Vec<Sample> = answers.iter().map(|answer| answer.sample.clone()).collect();
        let one = |scorer: &Scorer| {
            let scores = match &scorer.kind {
                Kind::Plugin(plugin) => {
                    let scores = breadcrumb::within(&scorer.name, "score", || plugin.score(&samples));
                    scores.map_err(|e| {
                        let column = e.code == Code::ARRAY;
                        let error = failed(&scorer.name, "score", e);
                        if column { error.with_hint(DECLARE) } else { error }
                    })?
                }
                Kind::Model { model, mean, deviation } => {
                    let scores = self.model_scores(model, answers)?;
                    scores.iter().map(|score| (score - mean) / deviation).collect()
                }
            };
            if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
                let (name, score, prompt) = (&scorer.name, scores[at], &samples[at].prompt);
                return Err(Error::run(format!(
                    "reward \"{name}\" returned {score} for an answer to {prompt:?}, expected a finite number"
                )));
            }
            Ok(Scores { name: scorer.name.clone(), weight: scorer.weight, scores })
        };
        self.scorers.iter().map(one).collect()
    }

    /// Returns the weighted sum of each answer's scores, clipped.
    pub fn combined(&self, scores: &[Scores], answers: usize) -> Vec<f64> {
        let sum = |answer: usize| -> f64 {
            scores
                .iter()
                .filter(|scorer| scorer.weight != 0.0)
                .map(|scorer| scorer.weight * scorer.scores[answer])
                .sum()
        };
        let clip = self.clip.unwrap_or(f64::INFINITY);
        (0..answers).map(|answer| sum(answer).clamp(-clip, clip)).collect()
    }

    fn model_scores(&self, model: &Model, answers: &[Answer]) -> Result<Vec<f64>> {
        let sequences: Vec<Sequence> = answers.iter().map(|answer| answer.sequence.clone()).collect();
        let mut scores = Vec::with_capacity(answers.len());
        for range in pack::micro_batches(&sequences, self.tokens) {
            let packed = pack::pack(&sequences[range])?;
            let forward = model.forward(view(&packed), Keep::Nothing)?;
            scores.extend(at_ends(&packed, &model.scalars(&forward)?));
        }
        Ok(scores)
    }
}

fn open_model(setup: &Setup, key: &str, device: &Device, path: &str, normalise: bool) -> Result<Kind> {
    let key = format!("{key}.model");
    let named = setup.named_model(path).map_err(|e| setup.loaded.refuse(&key, refusal_text(&e)))?;
    if !named.config.outputs.scalar {
        let why = format!("{path} is not a reward model: it has no scalar head");
        return Err(setup.loaded.refuse(&key, why));
    }
    if named.config.outputs.tokens {
        let why = format!("{path} is a language model with a critic on its trunk, not a reward model");
        return Err(setup.loaded.refuse(&key, why));
    }
    let model = Box::new(setup.role(&key, device, path, Outputs::SCALAR)?);
    let (mean, deviation) = match (normalise, named.config.scores) {
        (false, _) => (0.0, 1.0),
        (true, Some((mean, deviation))) if deviation > 0.0 => (mean, deviation),
        (true, _) => {
            let why = format!("{path} has no recorded mean and deviation of scores");
            let remedy = "train it with held-out pairs, or leave out `normalise`";
            return Err(setup.loaded.refuse(&key, format!("{why}; {remedy}")));
        }
    };
    Ok(Kind::Model { model, mean, deviation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(name: &str, weight: f64, scores: &[f64]) -> Scores {
        Scores { name: name.into(), weight, scores: scores.to_vec() }
    }

    /// Catches a mean in place of the weighted sum, a reward of weight 0 that still contributes (its NaN would too), a clip of
    /// the parts instead of the sum, and a reward of 0 that is treated as missing.
    #[test]
    fn gotcha_33_rewards_are_weighted_summed_and_then_clipped() {
        let scored = [
            scores("a", 0.5, &[4.0, -8.0, 0.0]),
            scores("b", -2.0, &[1.0, 3.0, 0.0]),
            scores("measured", 0.0, &[f64::MAX; 3]),
        ];
        let rewards = |clip| Rewards { scorers: Vec::new(), clip, tokens: 1 };
        assert_eq!(rewards(None).combined(&scored, 3), [0.0, -10.0, 0.0]);
        assert_eq!(rewards(Some(3.0)).combined(&scored, 3), [0.0, -3.0, 0.0]);
        assert_eq!(rewards(None).combined(&[], 2), [0.0, 0.0]);
        assert!(rewards(None).is_empty() && !rewards(None).any_weighted());
    }
}
