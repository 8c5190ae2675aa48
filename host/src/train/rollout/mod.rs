//! Rollouts: the policy answers prompts, the answers are scored and measured once, and several epochs of optimizer steps learn
//! from them.
//!
//! Each sequence carries its own log-probabilities, advantages and reward, so a step needs only its sequences, and so does a
//! checkpoint in the middle of a rollout. Log-probabilities are computed as in training, by a packed forward pass, however the
//! tokens were sampled, so that the first ratio is 1.
//!
//! | file | job |
//! |---|---|
//! | `open` | the rollouts of an experiment, with its mistakes |
//! | [`draw`] | drawing a rollout: answers to prompts, and to more of them as long as the objectives request that |
//! | [`sampling`] | the policy's answers |
//! | [`rewards`] | their rewards |
//! | `single_rewards` | arrays of single rewards that objectives read by name |
//! | `spans` | rewards of passages of an answer, laid on its tokens |
//! | `process` | those of process reward models |
//! | `measure` | what is computed once for a whole rollout |
//! | `skipped` | rollouts of which no answer is kept |
//! | `state` | the current rollout: which answers come next, and its file in a checkpoint |
//! | `made_up` | made-up answers, for counting memory |

pub mod draw;
mod made_up;
mod measure;
mod open;
mod process;
pub mod rewards;
pub mod sampling;
mod single_rewards;
mod skipped;
mod spans;
mod state;

use std::{path::Path, sync::Arc};

use plugin_api::batch::names;

use super::{alerts::names::SPREAD, histogram::Distribution, step::models::Models};
use crate::{
    config::experiment::Rollout,
    data::{Examples, Sequence, Tokenizer, Window},
    error::Result,
    objectives::Objectives,
};
use rewards::Rewards;
use sampling::AnswerRecord;
use skipped::Skipped;
use state::{Selection, State};

/// Draws rollouts and returns their windows.
pub struct Rollouts {
    settings: Rollout,
    /// Prompts of one optimizer step.
    prompts: usize,
    seed: u64,
    /// Positions computed at a time.
    tokens: usize,
    tokenizer: Tokenizer,
    data: Arc<dyn Examples>,
    state: State,
    /// The state after the last completed step; a checkpoint saves it.
    committed: State,
    /// Mean rewards of the latest rollout until a step reports them.
    mean_rewards: Vec<(String, f64)>,
    /// Largest minus smallest reward of the latest rollout until a step reports it.
    spread: Option<f64>,
    /// First answers of the latest rollout until a step records them.
    first_answers: Vec<AnswerRecord>,
    /// Rewards and lengths of the latest rollout's answers until a step records them.
    distributions: Vec<Distribution>,
    /// How many answers the latest rollout drew and kept until a step reports it; only for objectives that keep or request.
    selection: Option<Selection>,
    /// Whether a rollout took fewer prompts than requested, until a note says so.
    limit_reached: bool,
    /// Rollouts of which no answer was kept, since the latest one that was learned from.
    skipped: Skipped,
}

/// The models that draw and score a rollout.
pub struct RolloutModels<'a> {
    /// The policy, which answers, and the other models of the step.
    pub models: Models<'a>,
    /// The objectives that learn from the answers.
    pub objectives: &'a mut Objectives,
    /// The rewards that score them.
    pub rewards: &'a Rewards,
}

/// Settings for drawing rollouts.
pub struct RolloutSettings {
    /// The experiment's `[rollout]` table.
    pub settings: Rollout,
    /// Prompts of one optimizer step.
    pub prompts: usize,
    /// Seed of answers and orders.
    pub seed: u64,
    /// Positions computed at a time.
    pub tokens: usize,
    /// The policy's tokenizer.
    pub tokenizer: Tokenizer,
    /// Where prompts come from.
    pub data: Arc<dyn Examples>,
}

impl Rollouts {
    /// Creates the rollouts; none is drawn yet.
    pub fn new(settings: RolloutSettings) -> Rollouts {
        let RolloutSettings { settings, prompts, seed, tokens, tokenizer, data } = settings;
        let (state, committed, mean_rewards, spread, first_answers, distributions, selection) = Default::default();
        Rollouts {
            settings,
            prompts,
            seed,
            tokens,
            tokenizer,
            data,
            state,
            committed,
            mean_rewards,
            spread,
            first_answers,
            distributions,
            selection,
            limit_reached: false,
            skipped: Skipped::default(),
        }
    }

    /// Returns whether nothing of the current rollout is left to learn from.
    pub fn spent(&self) -> bool {
        self.state.sequences.is_empty()
    }

    /// Drops the rest of the current rollout.
    pub fn drop_rest(&mut self) {
        self.state.sequences = Arc::default();
    }

    /// Takes the metrics of a rollout drawn since the last call: mean rewards, how many answers were drawn and kept, and
    /// the largest minus the smallest reward.
    pub fn take_metrics(&mut self) -> Vec<(String, f64)> {
        let selection = self.selection.take().map(Selection::metrics);
        let spread = self.spread.take().map(|spread| (SPREAD.to_owned(), spread));
        std::mem::take(&mut self.mean_rewards)
            .into_iter()
            .chain(selection.into_iter().flatten())
            .chain(spread)
            .collect()
    }

    /// Takes the notes that are due if a rollout drawn since the last call was skipped, or reached the limit of prompts.
    pub fn take_notes(&mut self) -> Vec<String> {
        let most = self.settings.most_prompts();
        let limit = std::mem::take(&mut self.limit_reached).then(|| {
            format!(
                "the objectives requested more prompts than rollout.max_prompts = {most}: a rollout takes the answers that were \
                 kept until then; raise it, or choose prompts and rewards for which fewer answers are dropped"
            )
        });
        self.skipped.take_note().into_iter().chain(limit).collect()
    }

    /// Takes the first answers of a rollout drawn since the last call.
    pub fn take_first_answers(&mut self) -> Vec<AnswerRecord> {
        std::mem::take(&mut self.first_answers)
    }

    /// Takes the distributions of a rollout drawn since the last call.
    pub fn take_distributions(&mut self) -> Vec<Distribution> {
        std::mem::take(&mut self.distributions)
    }

    /// Returns the number of answers per prompt.
    pub fn samples(&self) -> usize {
        self.settings.samples
    }

    /// Returns the number of prompts per rollout.
    pub fn prompts(&self) -> usize {
        self.settings.prompts
    }

    /// Returns the maximum length of an answer in tokens.
    pub fn max_new_tokens(&self) -> usize {
        self.settings.max_new_tokens
    }

    /// Returns the positions of a prompt of `prompt` tokens with the longest answer in a context of `context`.
    pub fn longest(&self, prompt: usize, context: usize) -> usize {
        prompt.saturating_add(self.settings.max_new_tokens).min(context)
    }

    /// Returns the next window: the answers to the next prompts of a step, in the current pass's order.
    ///
    /// # Errors
    /// No answer has a token to learn from.
    pub fn window(&mut self) -> Result<Window> {
        self.state.next_window(self.seed, self.prompts, self.settings.epochs)
    }

    /// Marks the step as complete: a checkpoint saves the state from now on.
    pub fn commit(&mut self) {
        self.committed = self.state.clone();
    }

    /// Writes what a checkpoint needs to continue in the middle of a rollout.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn save(&self, folder: &Path) -> Result<()> {
        self.committed.save(folder)
    }

    /// Restores the rollout of a checkpoint.
    ///
    /// # Errors
    /// A request error that names the file.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        self.state = State::read(folder)?;
        self.commit();
        Ok(())
    }
}

/// Returns `samples` copies of a prompt as one group.
fn grouped(prompt: &Sequence, group: u64, samples: usize) -> impl Iterator<Item = Sequence> {
    let mut prompt = prompt.clone();
    prompt.per_sequence.insert(names::GROUP.to_owned(), group as f64);
    std::iter::repeat_n(prompt, samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(row: u64, length: usize) -> Sequence {
        Sequence {
            ids: vec![1; length],
            supervised: vec![true; length],
            row,
            per_sequence: [(names::GROUP.to_owned(), row as f64)].into(),
            reads_last: true,
            ..Default::default()
        }
    }

    fn rollouts(prompts: usize, epochs: usize, samples: usize) -> Rollouts {
        let settings = Rollout {
            prompts: 4,
            samples,
            epochs,
            max_new_tokens: 4,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            max_prompts: None,
            clip: None,
        };
        let state = State {
            drawn: 1,
            sequences: Arc::new((0..4).flat_map(|row| vec![sequence(row, 3); samples]).collect()),
            epoch: 0,
            taken: 0,
        };
        let (tokenizer, data) =
            (Tokenizer::bytes().unwrap(), crate::data::TokenSet::load(&[], &Tokenizer::bytes().unwrap(), None));
        let data = Arc::new(data.unwrap());
        Rollouts { state, ..Rollouts::new(RolloutSettings { settings, prompts, seed: 3, tokens: 64, tokenizer, data }) }
    }

    /// Catches a pass that skips or repeats answers, one order for all passes, and a group that is split.
    #[test]
    fn every_pass_takes_every_prompt_once_with_all_its_answers() {
        let mut rollouts = rollouts(2, 3, 2);
        let mut orders = Vec::new();
        for _ in 0..3 {
            let mut rows = Vec::new();
            for _ in 0..2 {
                assert!(!rollouts.spent());
                let window = rollouts.window().unwrap();
                let own: Vec<u64> = window.sequences().iter().map(|s| s.row).collect();
                assert!(own.chunks(2).all(|pair| pair[0] == pair[1]));
                rows.extend(own.into_iter().step_by(2));
            }
            orders.push(rows.clone());
            rows.sort_unstable();
            assert_eq!(rows, [0, 1, 2, 3]);
        }
        assert!(rollouts.spent());
        assert!(orders.iter().any(|order| *order != orders[0]));
    }

    /// Catches a checkpoint in the middle of a rollout that loses the pass, the place in it, or a bit of a number.
    #[test]
    fn a_rollout_continues_where_its_checkpoint_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = rollouts(1, 2, 1);
        let numbers = [vec![0.1 + 0.2, -1e-300, 3.0], vec![1.0 / 3.0; 3], vec![2.0; 3], vec![0.0; 3]];
        for (sequence, numbers) in Arc::make_mut(&mut first.state.sequences).iter_mut().zip(numbers) {
            sequence.per_token.insert("advantage".to_owned(), numbers);
        }
        (0..4).for_each(|_| _ = first.window().unwrap());
        first.commit();
        // A step that fails after it took its window must get the same window again.
        let mid_step = first.window().unwrap();
        first.save(folder.path()).unwrap();
        let mut second = rollouts(1, 2, 1);
        second.restore(folder.path()).unwrap();
        assert_eq!(second.window().unwrap(), mid_step);
        while !first.spent() {
            assert_eq!(first.window().unwrap(), second.window().unwrap());
        }
        assert!(second.spent());
    }
}
