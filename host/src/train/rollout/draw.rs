//! Drawing a rollout: answers to prompts, and to more of them as long as the objectives request that.

use std::sync::Arc;

use plugin_api::batch::names;
use telos_random::Rng;

use super::{
    RolloutModels, Rollouts, grouped,
    measure::{self, Measured},
    rewards::{Scores, of_answers},
    sampling::{Answer, AnswerRecord, Policy, per_token},
    skipped::NoneKept,
    state::{Selection, State},
};
use crate::{
    data::Sequence, error::Result, generate::GenerateOptions, objectives::Objectives, runs::breadcrumb::CrashMarker,
};

/// How many answers of a rollout are recorded.
const RECORDED: usize = 2;

/// Separates the random stream of answers from all others with the same seed.
const ANSWERS: u64 = 0xA115;

/// The prompts of a rollout.
pub struct Prompts<'a> {
    /// Those of the first draw.
    pub first: Vec<Sequence>,
    /// Returns the next prompts of the data, the given number of them or fewer if the data ends.
    pub more: &'a mut dyn FnMut(usize) -> Result<Vec<Sequence>>,
}

/// What was drawn for a rollout so far, kept or not.
#[derive(Default)]
struct Drawn {
    scores: Vec<Scores>,
    combined: Vec<f64>,
    /// Tokens of each answer, the end-of-text token included.
    lengths: Vec<f64>,
    /// Answers that were cut off.
    cut_off: usize,
    first_answers: Vec<AnswerRecord>,
}

impl Rollouts {
    /// Answers prompts, scores and measures the answers. As long as the objectives request more prompts, answers those too and
    /// calls `prepare` again with all answers to prompts of which one is kept, from the states that the objectives had before; at most `rollout.max_prompts` prompts are
    /// drawn. `step`: the optimizer steps done so far. If no answer is kept, nothing is left to learn from, and the caller draws
    /// the next rollout.
    ///
    /// # Errors
    /// Errors of plugins and of the backend; objectives that keep no answer of too many rollouts in a row.
    pub fn draw(
        &mut self,
        prompts: Prompts<'_>,
        step: u64,
        models: &mut RolloutModels<'_>,
        marker: &CrashMarker,
    ) -> Result<()> {
        let before = models.objectives.states()?;
        let most = self.settings.most_prompts();
        let (mut all, mut pool, mut count) = (Drawn::default(), Measured::default(), 0);
        let Prompts { first: mut next, more } = prompts;
        let (prepared, is_limited) = loop {
            marker.backend("rollout");
            let drawn = self.answers(&next, count, step, models, &mut all)?;
            // The rewards' calls end with the mark of the host.
            marker.backend("rollout");
            pool.add(measure::statistics(drawn, models.models, models.objectives, self.tokens)?)?;
            count += next.len();
            let prepared = measure::prepare(&pool, models.objectives, marker)?;
            let wanted = prepared.request.min(most.saturating_sub(count) as u64) as usize;
            next = if wanted > 0 { more(wanted)? } else { Vec::new() };
            if next.is_empty() {
                let is_limited = prepared.request > 0 && wanted == 0;
                break (prepared, is_limited);
            }
            models.objectives.put_back(before.clone())?;
            pool.keep_groups(&prepared.keep)?;
        };
        let (selects, droppers) = (prepared.selects, prepared.droppers.clone());
        let sequences = pool.finish(prepared)?;
        self.limit_reached |= is_limited;
        if sequences.is_empty() {
            let is_scored = models.rewards.any_weighted();
            self.skipped.add(&NoneKept {
                objectives: &droppers,
                samples: self.settings.samples,
                rewards: if is_scored { &all.combined } else { &[] },
                answers: all.combined.len(),
                cut_off: all.cut_off,
                max_new_tokens: self.settings.max_new_tokens,
            })?;
            self.drop_rest();
            self.state.drawn += 1;
            return Ok(());
        }
        let (answers, kept, skipped) = (all.combined.len(), sequences.len(), self.skipped.take());
        // Skipped rollouts are counted also where nothing of this one is dropped.
        self.selection = (selects || skipped > 0).then_some(Selection { prompts: count, answers, kept, skipped });
        self.report(all, models.rewards.any_weighted());
        self.state = State { drawn: self.state.drawn + 1, sequences: Arc::new(sequences), epoch: 0, taken: 0 };
        Ok(())
    }

    /// Answers `prompts`, the first of which is prompt `before` of the rollout, and scores the answers.
    fn answers(
        &self,
        prompts: &[Sequence],
        before: usize,
        step: u64,
        models: &RolloutModels<'_>,
        all: &mut Drawn,
    ) -> Result<Vec<Sequence>> {
        let policy = Policy { model: models.models.policy, tokenizer: &self.tokenizer, data: &*self.data };
        let samples = self.settings.samples;
        // Groups are numbered over all draws of a rollout.
        let numbered = prompts.iter().zip(before as u64..);
        let repeated: Vec<Sequence> = numbered.flat_map(|(p, group)| grouped(p, group, samples)).collect();
        let answers = policy.answer(&repeated, &self.options(before))?;
        let scores = models.rewards.score(&answers)?;
        let combined = models.rewards.combined(&scores, answers.len());
        let records = answers.iter().zip(&combined).map(|(answer, reward)| AnswerRecord::new(answer, *reward));
        all.first_answers.extend(records.take(RECORDED - all.first_answers.len().min(RECORDED)));
        let mut sequences: Vec<Sequence> =
            answers.into_iter().map(|answer| with_sampler(answer, step, models.objectives)).collect();
        scores.iter().for_each(|one| one.attach(&mut sequences));
        for (sequence, reward) in sequences.iter_mut().zip(&combined) {
            sequence.per_sequence.insert(names::REWARD.to_owned(), *reward);
        }
        let is_cut = |sequence: &&Sequence| sequence.per_sequence.get(names::ENDED) == Some(&0.0);
        all.cut_off += sequences.iter().filter(is_cut).count();
        all.combined.extend(combined);
        all.lengths.extend(sequences.iter().map(|sequence| sequence.supervised_targets() as f64));
        match all.scores.is_empty() {
            true => all.scores = scores,
            false => all.scores.iter_mut().zip(scores).for_each(|(all, more)| all.extend(more)),
        }
        Ok(sequences)
    }

    /// Returns how the next answers are sampled: every draw of every rollout has a seed of its own.
    fn options(&self, before: usize) -> GenerateOptions {
        let rollout = [self.seed, ANSWERS, self.state.drawn];
        let seed = match before {
            0 => Rng::new(&rollout).next_u64(),
            _ => Rng::new(&[&rollout[..], &[before as u64]].concat()).next_u64(),
        };
        let (max_tokens, temperature) = (self.settings.max_new_tokens, self.settings.temperature);
        GenerateOptions { max_tokens, temperature, top_p: self.settings.top_p, top_k: self.settings.top_k, seed }
    }

    /// Keeps what the next step reports of the rollout. Without a reward to learn from, all rewards are 0 and have no range; one
    /// reward has none either.
    fn report(&mut self, all: Drawn, is_scored: bool) {
        self.mean_rewards = all.scores.iter().flat_map(Scores::means).collect();
        let least = all.combined.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.combined.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.spread = (is_scored && all.combined.len() > 1).then_some(most - least);
        self.first_answers = all.first_answers;
        let rewards = if is_scored { all.combined.as_slice() } else { &[] };
        self.distributions = of_answers(&all.scores, rewards, &all.lengths);
    }
}

/// Returns the sequence of an answer with the numbers of the distributions that its tokens were drawn from, where an objective
/// requires them, and with the step after which it was drawn.
fn with_sampler(answer: Answer, step: u64, objectives: &Objectives) -> Sequence {
    let Answer { mut sequence, logps, entropies, .. } = answer;
    sequence.per_sequence.insert(names::SAMPLER_STEP.to_owned(), step as f64);
    for (name, values) in [(names::SAMPLER_LOGP, logps), (names::SAMPLER_ENTROPY, entropies)] {
        if objectives.requires(name) {
            let values = per_token(&sequence, &values);
            sequence.per_token.insert(name.to_owned(), values);
        }
    }
    sequence
}
