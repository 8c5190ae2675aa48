//! Made-up answers: batches of the largest possible size, for trial computations and for counting memory.

use plugin_api::batch::names;

use super::{
    RolloutModels, Rollouts, grouped, measure,
    rewards::{Rewards, Scores},
    sampling::per_token,
};
use crate::{data::Sequence, error::Result, objectives::Objectives, runs::breadcrumb::CrashMarker};

impl Rollouts {
    /// Returns `samples` made-up answers to each of `prompts`, for trial computations and counting, not for training. Every answer has the
    /// longest length that the settings and a context of `context` tokens allow, and repeats its prompt's tokens; rewards and
    /// ends differ from answer to answer. They have every array that `objectives` read and `rewards` give. No random number is
    /// drawn.
    pub fn made_up(
        &self,
        prompts: &[Sequence],
        samples: usize,
        context: usize,
        objectives: &Objectives,
        rewards: &Rewards,
    ) -> Vec<Sequence> {
        let repeated = prompts.iter().zip(0..).flat_map(|(p, group)| grouped(p, group, samples));
        let mut answers: Vec<Sequence> =
            repeated.enumerate().map(|(index, prompt)| self.made_up_answer(prompt, index, context)).collect();
        for (name, value) in [(names::SAMPLER_LOGP, -1.0), (names::SAMPLER_ENTROPY, 1.0)] {
            for answer in answers.iter_mut().filter(|_| objectives.requires(name)) {
                let values = vec![value; answer.ids.len()];
                let values = per_token(answer, &values);
                answer.per_token.insert(name.to_owned(), values);
            }
        }
        let lengths: Vec<usize> = answers.iter().map(Sequence::supervised_targets).collect();
        rewards.made_up(&lengths).iter().for_each(|scores: &Scores| scores.attach(&mut answers));
        answers
    }

    /// Measures `answers` as a drawn rollout is measured, by the models and the objectives' `prepare`, and returns them with
    /// the results. All answers are kept, no more are drawn, and the current rollout does not change; the caller must restore the
    /// states of the objectives.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    pub fn measured(
        &self,
        answers: Vec<Sequence>,
        models: &mut RolloutModels<'_>,
        marker: &CrashMarker,
    ) -> Result<Vec<Sequence>> {
        let measured = measure::statistics(answers, models.models, models.objectives, self.tokens)?;
        let mut prepared = measure::prepare(&measured, models.objectives, marker)?;
        prepared.keep.fill(true);
        measured.finish(prepared)
    }

    fn made_up_answer(&self, prompt: Sequence, index: usize, context: usize) -> Sequence {
        let start = prompt.ids.len();
        let length = self.longest(start, context).saturating_sub(start).max(1);
        let mut sequence = prompt;
        let answer: Vec<u32> = sequence.ids.iter().cycle().skip(index % start.max(1)).take(length).copied().collect();
        sequence.ids.extend(answer);
        sequence.supervised = (0..sequence.ids.len()).map(|place| place >= start).collect();
        let ends = index.is_multiple_of(2);
        if let (true, Some(eos), Some(last)) = (ends, self.tokenizer.eos(), sequence.ids.last_mut()) {
            *last = eos;
        }
        sequence.per_sequence.insert(names::ENDED.to_owned(), f64::from(u8::from(ends)));
        sequence.per_sequence.insert(names::REWARD.to_owned(), (index % 3) as f64 / 2.0);
        sequence.per_sequence.insert(names::SAMPLER_STEP.to_owned(), 0.0);
        (sequence.reads_last, sequence.per_token) = (true, Default::default());
        sequence
    }
}
