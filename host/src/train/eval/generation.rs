//! Rewards of the policy's answers to held-out prompts, and how far these answers are from the reference.

use serde_json::{Map, Value, json};

use super::{
    evaluator::{Evaluator, HeldOutPrompts, Measured, sampling},
    prompts::EvalPrompt,
};
use crate::{
    data::{Sequence, pack},
    error::Result,
    generate::{GenerateOptions, text::SampleText},
    objectives::{Objectives, batch_arrays::supervised_rows, reads::Frozen},
    train::{
        rollout::{
            rewards::{Rewards, Scores, of_answers},
            sampling::{Answer, AnswerRecord, Policy},
        },
        step::{forward::logps, models::Models},
    },
};

/// Measures, if the experiment has rewards: `reward/NAME` for every reward, `reward/NAME/PART` for its parts, `reward` as in rollouts, `answers/ended` and
/// `answers/length` (tokens, including the end-of-text token), and, with a reference, `answers/kl` (the objectives' own metrics
/// called `kl` cover other answers): the sum over an answer's tokens of log-probability minus that of the reference, in nats per
/// answer.
pub struct RewardsOfAnswers;

impl Evaluator for RewardsOfAnswers {
    fn names(&self, held_out: &HeldOutPrompts<'_>) -> Vec<String> {
        if held_out.prompts.is_empty() || held_out.rewards.is_empty() {
            return Vec::new();
        }
        let reward = held_out.objectives.needs().rollouts.then(|| "reward".to_owned());
        let by_reward = held_out.rewards.metrics();
        let kl = held_out.has_reference.then(|| "answers/kl".to_owned());
        let of_answers = ["answers/ended", "answers/length"].map(str::to_owned);
        reward.into_iter().chain(by_reward).chain(of_answers).chain(kl).collect()
    }

    fn measure(&self, held_out: &mut HeldOutPrompts<'_>) -> Result<Measured> {
        let HeldOutPrompts { experiment, tokenizer, data, prompts, models, has_reference, rewards, .. } = *held_out;
        let objectives = &mut *held_out.objectives;
        let options = sampling(experiment, prompts);
        // Log-probabilities are those of the policy that answers: of greedy answers, at the temperature of 1.
        let usual = objectives.temperature();
        objectives.set_temperature(if options.temperature > 0.0 { options.temperature } else { 1.0 });
        let scoring = Scoring {
            policy: Policy { model: models.policy, tokenizer, data },
            models,
            has_reference,
            objectives,
            rewards,
            options,
            tokens: rewards.tokens(),
        };
        let scored = scoring.measure(prompts);
        objectives.set_temperature(usual);
        scored
    }
}

/// The models and rewards that answer prompts and score the answers.
struct Scoring<'a> {
    /// The policy that answers.
    policy: Policy<'a>,
    /// The models; their policy is the one that answers.
    models: Models<'a>,
    /// Whether the reference stays on the device, so that evaluations can measure how far the policy has moved from it.
    has_reference: bool,
    /// Objectives whose statistics measure how far the policy has moved.
    objectives: &'a Objectives,
    /// The rewards that score the answers.
    rewards: &'a Rewards,
    /// Sampling options.
    options: GenerateOptions,
    /// Positions computed at a time.
    tokens: usize,
}

impl Scoring<'_> {
    fn measure(&self, prompts: &[EvalPrompt]) -> Result<Measured> {
        let inputs: Vec<Sequence> = prompts.iter().map(|prompt| prompt.prompt().clone()).collect();
        let answers = self.policy.answer(&inputs, &self.options)?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let scores = self.rewards.score(&answers)?;
        let combined = self.rewards.combined(&scores, answers.len());
        let mut values = Vec::new();
        let learns = self.objectives.needs().rollouts;
        if learns {
            values.push(mean(&combined));
        }
        values.extend(scores.iter().flat_map(Scores::means).map(|(_, mean)| mean));
        let ended: Vec<f64> = answers.iter().map(|answer| f64::from(u8::from(answer.sample.ended))).collect();
        let lengths: Vec<f64> = answers.iter().map(|answer| answer.sequence.supervised_targets() as f64).collect();
        values.extend([mean(&ended), mean(&lengths)]);
        values.extend(self.kl(&answers)?);
        let distributions = of_answers(&scores, if learns { &combined } else { &[] }, &lengths);
        let each = answers.iter().zip(prompts).zip(combined).enumerate();
        let answers = each.map(|(index, ((answer, prompt), sum))| line(index, answer, prompt, sum, &scores)).collect();
        Ok(Measured { values, answers, distributions })
    }

    fn kl(&self, answers: &[Answer]) -> Result<Option<f64>> {
        if !self.has_reference {
            return Ok(None);
        }
        let (policy, reference) = (self.models.policy, self.models.frozen(Frozen::Reference)?);
        let temperature = self.objectives.temperature();
        let sequences: Vec<Sequence> = answers.iter().map(|answer| answer.sequence.clone()).collect();
        let mut sum = 0.0;
        for range in pack::micro_batches(&sequences, self.tokens) {
            let packed = pack::pack(&sequences[range])?;
            let rows = supervised_rows(&packed);
            let logps = |model| logps(model, &packed, &rows, temperature);
            sum += logps(policy)?.iter().zip(logps(reference)?).map(|(own, reference)| own - reference).sum::<f64>();
        }
        Ok(Some(sum / answers.len().max(1) as f64))
    }
}

/// Returns answer number `index` as a JSON object, with each reward by name; `sum` is the weighted sum of its rewards.
fn line(index: usize, answer: &Answer, prompt: &EvalPrompt, sum: f64, scores: &[Scores]) -> Map<String, Value> {
    let AnswerRecord { text: SampleText { prompt: prompt_text, text, tokens, finish }, reward } =
        AnswerRecord::new(answer, sum);
    let rewards: Map<String, Value> =
        scores.iter().map(|reward| (reward.name.clone(), json!(reward.scores[index]))).collect();
    let line = [
        ("kind", json!("reward")),
        ("prompt", json!(prompt_text)),
        ("answer", json!(text)),
        ("expected", json!(prompt.answer())),
        ("reward", json!(reward)),
        ("rewards", json!(rewards)),
        ("tokens", json!(tokens)),
        ("finish", json!(finish)),
    ];
    line.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
