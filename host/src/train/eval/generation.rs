//! Metrics of the policy's answers to held-out prompts, scored by rewards.

use plugin_api::batch::{Scope, names};

use super::{Figures, exact_match::EvalPrompt};
use crate::{
    config::Experiment,
    data::{Sequence, pack},
    error::Result,
    generate::GenerateOptions,
    model::Keep,
    objectives::Objectives,
    train::{
        rollout::{
            rewards::Rewards,
            sampling::{Answer, AnswerRecord, Policy},
        },
        step::{forward::ForwardPass, models::Models},
    },
};

/// A held-out answer with its rewards.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardedAnswer {
    /// Prompt, answer, its length and why it ended, and the weighted sum of the rewards.
    pub said: AnswerRecord,
    /// The row's own answer, if it has one.
    pub expected: Option<String>,
    /// Each reward with its name.
    pub rewards: Vec<(String, f64)>,
}

/// Returns the sampling options for held-out prompts that rewards score: the token limit of rollouts; without rollouts twice
/// the longest answer of a row, or 64 tokens if there is none. The seed is always the same.
pub fn options(experiment: &Experiment, questions: &[EvalPrompt]) -> GenerateOptions {
    let longest = questions.iter().map(EvalPrompt::answer_length).max().filter(|length| *length > 0);
    let (max_tokens, top_p, top_k) = match &experiment.rollout {
        Some(rollout) => (rollout.max_new_tokens, rollout.top_p, rollout.top_k),
        None => (longest.map_or(64, |length| 2 * length), 1.0, 0),
    };
    let temperature = experiment.eval.temperature.unwrap_or(1.0);
    GenerateOptions { max_tokens, temperature, top_p, top_k, seed: experiment.seed }
}

/// Evaluates answers to held-out prompts.
pub struct GenerationEval<'a> {
    /// The policy that answers.
    pub policy: Policy<'a>,
    /// The models; their policy is the one that answers.
    pub models: Models<'a>,
    /// Whether the reference stays on the device, so that evaluations can measure how far the policy has moved from it.
    pub has_reference: bool,
    /// Objectives whose statistics measure how far the policy has moved.
    pub objectives: &'a Objectives,
    /// The rewards that score the answers.
    pub rewards: &'a Rewards,
    /// Sampling options.
    pub options: GenerateOptions,
    /// Positions computed at a time.
    pub tokens: usize,
}

/// Returns the names of the metrics of [`GenerationEval::figures`]; `has_reference`: a reference stays on the device for the
/// whole run.
pub fn names(objectives: &Objectives, rewards: &Rewards, has_reference: bool) -> Vec<String> {
    let reward = objectives.needs().rollouts.then(|| "reward".to_owned());
    let judges = rewards.names().map(|name| format!("reward/{name}"));
    let moved = has_reference.then(|| KL.to_owned());
    reward.into_iter().chain(judges).chain([ENDED.to_owned(), LENGTH.to_owned()]).chain(moved).collect()
}

const ENDED: &str = "answers/ended";
const LENGTH: &str = "answers/length";
const KL: &str = "answers/kl";

impl GenerationEval<'_> {
    /// Answers every prompt and scores the answers. Returns the metrics, and the answers with their rewards. Metrics:
    /// `reward/NAME` for every reward, `reward` as in rollouts, `answers/ended` and `answers/length` (tokens, including the
    /// end-of-text token), and, with a reference, `answers/kl` (the objectives' own metrics called `kl` cover other answers):
    /// the sum over an answer's tokens of log-probability minus that of the reference, in nats per answer.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    pub fn figures(&self, questions: &[EvalPrompt]) -> Result<(Figures, Vec<RewardedAnswer>)> {
        let prompts: Vec<Sequence> = questions.iter().map(|question| question.prompt().clone()).collect();
        let answers = self.policy.answer(&prompts, &self.options)?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let scores = self.rewards.score(&answers)?;
        let combined = self.rewards.combined(&scores, answers.len());
        let mut figures = Vec::new();
        if self.objectives.needs().rollouts {
            figures.push(("reward".to_owned(), mean(&combined)));
        }
        figures.extend(scores.iter().map(|judge| (format!("reward/{}", judge.name), mean(&judge.scores))));
        let ended: Vec<f64> = answers.iter().map(|answer| f64::from(u8::from(answer.sample.ended))).collect();
        let lengths: Vec<f64> = answers.iter().map(|answer| answer.sequence.supervised_targets() as f64).collect();
        figures.push((ENDED.to_owned(), mean(&ended)));
        figures.push((LENGTH.to_owned(), mean(&lengths)));
        if let Some(kl) = self.kl(&answers)? {
            figures.push((KL.to_owned(), kl));
        }
        let rewarded =
            answers.iter().zip(&combined).zip(questions).enumerate().map(|(index, ((answer, reward), question))| {
                let rewards = scores.iter().map(|judge| (judge.name.clone(), judge.scores[index])).collect();
                RewardedAnswer {
                    said: AnswerRecord::new(answer, *reward),
                    expected: question.answer().map(str::to_owned),
                    rewards,
                }
            });
        Ok((figures, rewarded.collect()))
    }

    fn kl(&self, answers: &[Answer]) -> Result<Option<f64>> {
        if !self.has_reference {
            return Ok(None);
        }
        let pass = ForwardPass { models: self.models, objectives: self.objectives };
        let sequences: Vec<Sequence> = answers.iter().map(|answer| answer.sequence.clone()).collect();
        let mut sum = 0.0;
        for range in pack::micro_batches(&sequences, self.tokens) {
            let batch = pass.run(&pack::pack(&sequences[range])?, Keep::Nothing)?.batch;
            debug_assert!(batch.array("logp").is_ok_and(|logp| logp.scope == Scope::TOKEN));
            let (logp, reference) = (batch.get("logp")?, batch.get(names::REFERENCE_LOGP)?);
            sum += logp.iter().zip(reference).map(|(own, reference)| own - reference).sum::<f64>();
        }
        Ok(Some(sum / answers.len().max(1) as f64))
    }
}
