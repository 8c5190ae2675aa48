//! Rewards of answers: reward plugins and trained reward models, each with a weight.

use plugin_api::{
    batch::names,
    contract,
    error::Code,
    manifest::RewardManifest,
    reward::{Rating, Reward, Sample},
};
use plugin_api_load::LoadedReward;

use super::{
    process::{Given, ProcessModel},
    sampling::{Answer, per_token},
    spans,
};
use crate::{
    config::{
        Mistakes,
        experiment::{Aggregate, Reward as RewardTable, RewardSource, reward_names},
    },
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
    train::{histogram::Distribution, memory::micro_batch::MOST},
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
    Plugin {
        plugin: LoadedReward,
        manifest: RewardManifest,
    },
    /// A model's scores minus `mean`, divided by `deviation`.
    Model {
        model: Box<Model>,
        mean: f64,
        deviation: f64,
    },
    /// A process reward model, which scores the segments of answers.
    Process(ProcessModel),
}

/// One reward's scores.
pub struct Scores {
    /// The reward's name.
    pub name: String,
    /// Its weight in the sum.
    pub weight: f64,
    /// One score per answer.
    pub scores: Vec<f64>,
    /// Its named parts, each with one number per answer.
    pub parts: Vec<(String, Vec<f64>)>,
    /// For each answer one number per token, if the reward gives numbers for parts of an answer.
    pub tokens: Option<Vec<Vec<f64>>>,
}

impl Scores {
    fn new(scorer: &Scorer, scores: Vec<f64>) -> Scores {
        Scores { name: scorer.name.clone(), weight: scorer.weight, scores, parts: Vec::new(), tokens: None }
    }

    /// Appends the same reward's scores of further answers.
    pub(super) fn extend(&mut self, more: Scores) {
        self.scores.extend(more.scores);
        self.parts.iter_mut().zip(more.parts).for_each(|((_, all), (_, more))| all.extend(more));
        if let (Some(all), Some(more)) = (&mut self.tokens, more.tokens) {
            all.extend(more);
        }
    }

    /// Returns the means over all answers, of the score and of each part, by the names of their metrics.
    pub fn means(&self) -> Vec<(String, f64)> {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let parts = self.parts.iter().map(|(part, values)| (part_metric(&self.name, part), mean(values)));
        [(metric(&self.name), mean(&self.scores))].into_iter().chain(parts).collect()
    }

    /// Stores in each answer's sequence its score, parts and numbers per token, under the names that objectives read.
    pub(super) fn attach(&self, sequences: &mut [Sequence]) {
        let own = format!("{}{}", names::REWARD_OF, self.name);
        for (index, sequence) in sequences.iter_mut().enumerate() {
            sequence.per_sequence.insert(own.clone(), self.scores[index]);
            for (part, values) in &self.parts {
                sequence.per_sequence.insert(format!("{own}.{part}"), values[index]);
            }
            if let Some(tokens) = &self.tokens {
                let values = per_token(sequence, &tokens[index]);
                sequence.per_token.insert(format!("{own}.token"), values);
            }
        }
    }
}

/// Returns the distributions of answers: each reward by name, the weighted sum of all rewards if there is one, and the lengths.
pub fn of_answers(scores: &[Scores], combined: &[f64], lengths: &[f64]) -> Vec<Distribution> {
    let by_reward = scores.iter().map(|one| Distribution::of(metric(&one.name), &one.scores));
    let rest = [Distribution::of("reward", combined), Distribution::of("answers/length", lengths)];
    by_reward.chain(rest).flatten().collect()
}

fn metric(reward: &str) -> String {
    format!("reward/{reward}")
}

fn part_metric(reward: &str, part: &str) -> String {
    format!("reward/{reward}/{part}")
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
        let names = reward_names(&experiment.reward);
        for ((index, reward), name) in experiment.reward.iter().enumerate().zip(names) {
            let key = setup.loaded.key_of("reward", index);
            let opened = match &reward.source {
                RewardSource::Plugin { plugin } => {
                    let library = plugins.next().ok_or_else(|| Error::run("a reward plugin was not loaded"))?;
                    let loaded = breadcrumb::within(plugin, "create", || library.reward(&reward.options));
                    let manifest = breadcrumb::within(plugin, "manifest", || library.reward_manifest());
                    loaded.and_then(|plugin| Ok(Kind::Plugin { plugin, manifest: manifest? })).map_err(Error::from)
                }
                RewardSource::Model { model } => open_model(setup, &key, device, model, reward),
            };
            let opened = opened.and_then(|kind| kind.checked(&name));
            let Some(kind) = mistakes.check(&key, opened)? else { continue };
            scorers.push(Scorer { name, weight: reward.weight, kind });
        }
        if scorers.len() < experiment.reward.len() {
            return Ok(None);
        }
        let clip = experiment.rollout.as_ref().and_then(|rollout| rollout.clip);
        Ok(Some(Rewards { scorers, clip, tokens: experiment.train.micro_batch_tokens.unwrap_or(MOST) }))
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

    /// Returns the names of all metrics of the rewards, in the order of [`Scores::means`].
    pub fn metrics(&self) -> impl Iterator<Item = String> {
        self.scorers.iter().flat_map(|scorer| {
            let parts = scorer.kind.parts().into_iter().map(|part| part_metric(&scorer.name, part));
            [metric(&scorer.name)].into_iter().chain(parts)
        })
    }

    /// Returns the names of all arrays of single rewards, without `reward.`.
    pub(super) fn arrays(&self) -> Vec<String> {
        let of = |scorer: &Scorer| {
            let parts = scorer.kind.parts().into_iter().map(|part| format!("{}.{part}", scorer.name));
            let tokens = scorer.kind.gives_tokens().then(|| format!("{}.token", scorer.name));
            [scorer.name.clone()].into_iter().chain(parts).chain(tokens).collect::<Vec<String>>()
        };
        self.scorers.iter().flat_map(of).collect()
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
                Kind::Plugin { plugin, manifest } if manifest.rates() => {
                    let ratings = breadcrumb::within(&scorer.name, "rate", || plugin.rate(&samples));
                    rated(scorer, manifest, answers, &samples, ratings.map_err(|e| refused(scorer, "rate", e))?)?
                }
                Kind::Plugin { plugin, .. } => {
                    let scores = breadcrumb::within(&scorer.name, "score", || plugin.score(&samples));
                    Scores::new(scorer, scores.map_err(|e| refused(scorer, "score", e))?)
                }
                Kind::Model { model, mean, deviation } => {
                    let scores = self.model_scores(model, answers)?;
                    Scores::new(scorer, scores.iter().map(|score| (score - mean) / deviation).collect())
                }
                Kind::Process(process) => {
                    let given: Vec<Given<'_>> = answers.iter().map(given).collect();
                    let (scores, tokens) = process.score(&given, self.tokens)?;
                    Scores { tokens: Some(tokens), ..Scores::new(scorer, scores) }
                }
            };
            if let Some(at) = scores.scores.iter().position(|score| !score.is_finite()) {
                let (name, score, prompt) = (&scorer.name, scores.scores[at], &samples[at].prompt);
                return Err(Error::run(format!(
                    "reward \"{name}\" returned {score} for an answer to {prompt:?}, expected a finite number"
                )));
            }
            Ok(scores)
        };
        self.scorers.iter().map(one).collect()
    }

    /// Returns made-up scores of answers of these lengths in tokens, with every array that the rewards give.
    pub(super) fn made_up(&self, lengths: &[usize]) -> Vec<Scores> {
        let some =
            |step: usize| (0..lengths.len()).map(|answer| (answer * step % 3) as f64 / 2.0).collect::<Vec<f64>>();
        let one = |scorer: &Scorer| Scores {
            parts: scorer.kind.parts().into_iter().map(|part| (part.to_owned(), some(2))).collect(),
            tokens: scorer.kind.gives_tokens().then(|| lengths.iter().map(|length| vec![0.5; *length]).collect()),
            ..Scores::new(scorer, some(1))
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
                // A sum without terms would be -0.
                .fold(0.0, |sum, score| sum + score)
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

impl Kind {
    /// The names of its parts.
    fn parts(&self) -> Vec<&str> {
        match self {
            Kind::Plugin { manifest, .. } => manifest.parts.iter().map(|part| part.name.as_str()).collect(),
            Kind::Model { .. } | Kind::Process(_) => Vec::new(),
        }
    }

    /// Whether it gives numbers per token.
    fn gives_tokens(&self) -> bool {
        match self {
            Kind::Plugin { manifest, .. } => manifest.spans,
            Kind::Model { .. } => false,
            Kind::Process(_) => true,
        }
    }

    /// Checks the declared parts.
    fn checked(self, name: &str) -> Result<Kind> {
        if let Kind::Plugin { manifest, .. } = &self
            && let wrong = contract::reward_parts(manifest)
            && !wrong.is_empty()
        {
            return Err(Error::request(format!("reward \"{name}\": {}", wrong.join("; "))));
        }
        Ok(self)
    }
}

/// The error of a call that a reward refused.
fn refused(scorer: &Scorer, call: &str, error: plugin_api::Error) -> Error {
    let column = error.code == Code::ARRAY;
    let error = failed(&scorer.name, call, error);
    if column { error.with_hint(DECLARE) } else { error }
}

/// Checks ratings, and lays their spans on the answers' tokens.
fn rated(
    scorer: &Scorer,
    manifest: &RewardManifest,
    answers: &[Answer],
    samples: &[Sample],
    ratings: Vec<Rating>,
) -> Result<Scores> {
    let broken = |why: &dyn std::fmt::Display, sample: Option<&Sample>| {
        let error = Error::run(format!("reward \"{}\", call `rate`: {why}", scorer.name));
        match sample {
            Some(Sample { prompt, completion, .. }) => {
                error.with_details([format!("the prompt is {prompt:?}, the answer {completion:?}")])
            }
            None => error,
        }
    };
    contract::ratings(manifest, samples, &ratings)
        .map_err(|why| broken(&why, why.sequence.and_then(|index| samples.get(index))))?;
    let value =
        |rating: &Rating, name: &str| rating.parts.iter().find(|(own, _)| own == name).map_or(0.0, |(_, value)| *value);
    let part = |name: &String| (name.clone(), ratings.iter().map(|rating| value(rating, name)).collect());
    let parts = manifest.parts.iter().map(|declared| part(&declared.name)).collect();
    let tokens = |(index, rating): (usize, &Rating)| {
        spans::lay(&rating.spans, &answers[index].ends)
            .map_err(|span| broken(&format!("sample {index}: span {span} ends in no token"), samples.get(index)))
    };
    let tokens = match manifest.spans {
        true => Some(ratings.iter().enumerate().map(tokens).collect::<Result<Vec<_>>>()?),
        false => None,
    };
    Ok(Scores { parts, tokens, ..Scores::new(scorer, ratings.iter().map(|rating| rating.score).collect()) })
}

fn given(answer: &Answer) -> Given<'_> {
    let Answer { sequence, sample, ends, .. } = answer;
    Given { sequence, text: &sample.completion, ends, ended: sample.ended }
}

fn open_model(setup: &Setup, table: &str, device: &Device, path: &str, reward: &RewardTable) -> Result<Kind> {
    let key = format!("{table}.model");
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
    if let Some(separator) = &named.config.segment_separator {
        if reward.normalise {
            let why = "unused: a process reward model's scores are probabilities; leave it out";
            return Err(setup.loaded.refuse(&format!("{table}.normalise"), why));
        }
        let aggregate = reward.aggregate.unwrap_or(Aggregate::Min);
        return Ok(Kind::Process(ProcessModel::new(model, separator, aggregate, &setup.tokenizer)?));
    }
    if reward.aggregate.is_some() {
        let why =
            format!("unused: {path} scores whole answers; only a process reward model scores segments of answers");
        return Err(setup.loaded.refuse(&format!("{table}.aggregate"), why));
    }
    let (mean, deviation) = match (reward.normalise, named.config.scores) {
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
        Scores { name: name.into(), weight, scores: scores.to_vec(), parts: Vec::new(), tokens: None }
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
        assert!(rewards(None).combined(&scored[2..], 2).iter().all(|sum| sum.to_bits() == 0.0_f64.to_bits()));
        assert_eq!(rewards(None).combined(&[], 2), [0.0, 0.0]);
        assert!(rewards(None).is_empty() && !rewards(None).any_weighted());
    }
}
