//! Rollouts: the policy answers prompts, the answers are scored and measured once, and several epochs of optimizer steps learn
//! from them.
//!
//! Each sequence carries its own log-probabilities, advantages and reward, so a step needs only its sequences, and so does a
//! checkpoint in the middle of a rollout. Log-probabilities are computed as in training, by a packed forward pass, however the
//! tokens were sampled, so that the first ratio is 1.

pub mod rewards;
pub mod sampling;

use std::{fs, path::Path, sync::Arc};

use plugin_api::{
    batch::{Batch, Scope, names},
    contract,
};
use serde::{Deserialize, Serialize};
use telos_random::Rng;

use super::{
    memory::largest_rows::forward_tokens,
    step::{forward::ForwardPass, models::Models},
};
use crate::{
    config::{
        Mistakes,
        experiment::{self, Rollout},
    },
    data::{Examples, Sequence, Tokenizer, TrainingData, Window, pack},
    error::{Error, Result},
    files,
    generate::GenerateOptions,
    model::Keep,
    objectives::{
        Objectives,
        active::{broken, failed},
        batch_arrays::join_batches,
    },
    runs::breadcrumb::CrashMarker,
    setup::Setup,
};
use rewards::Rewards;
use sampling::{Answer, AnswerRecord, Policy};

/// File of a checkpoint in the middle of a rollout.
const FILE: &str = "rollout.json";

/// How many answers of a rollout are recorded.
const TOLD: usize = 2;

/// Separate the random streams of answers and of orders.
const ANSWERS: u64 = 0xA115;
const ORDER: u64 = 0x0D3E;

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
    whole: State,
    /// Mean rewards of the latest rollout until a step reports them.
    found: Vec<(String, f64)>,
    /// Smallest and largest reward of the latest rollout until a step reads them.
    spread: Option<(f64, f64)>,
    /// First answers of the latest rollout until a step records them.
    said: Vec<AnswerRecord>,
}

/// The current rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// Rollouts drawn, this one included.
    drawn: u64,
    /// Its answers with everything that was measured of them; answers to one prompt are neighbours.
    #[serde(with = "shared")]
    sequences: Arc<Vec<Sequence>>,
    /// Completed passes over the rollout.
    epoch: usize,
    /// Prompts of the current pass that were learned from.
    taken: usize,
}

/// Serializes sequences that two states share as if each state owned them.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::data::Sequence;

    pub fn serialize<S: Serializer>(sequences: &Arc<Vec<Sequence>>, to: S) -> Result<S::Ok, S::Error> {
        sequences.as_slice().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<Sequence>>, D::Error> {
        Vec::deserialize(from).map(Arc::new)
    }
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
    /// Refuses rewards and rollouts that are missing, unused or impossible.
    pub fn check_keys(setup: &Setup, objectives: &Objectives, mistakes: &mut Mistakes) {
        let experiment = setup.experiment();
        let is_free = mistakes.are_free(&["eval.generate"]);
        let mut refuse = |key: &str, why: String| {
            if mistakes.are_free(&[key]) {
                mistakes.refuse(key, why);
            }
        };
        if !objectives.needs().rollouts {
            if !experiment.reward.is_empty() && experiment.eval.generate.is_none() && is_free {
                let why = "unused: nothing is answered; eval.generate = 200 has answers to held-out prompts judged";
                refuse("reward", why.to_owned());
            }
            return;
        }
        if experiment.reward.iter().all(|reward| reward.weight == 0.0) {
            let why = "missing: what are answers worth? for example [[reward]] with plugin = \"length\"";
            refuse("reward", why.to_owned());
        }
        let experiment::Batch::Prompts(prompts) = experiment.train.batch else {
            return refuse("train.batch", "rollouts come in prompts; for example batch = { prompts = 16 }".to_owned());
        };
        let Some(settings) = &experiment.rollout else {
            let why = "missing: the objective learns from the policy's own answers; for example [rollout] with prompts = 64 and max_new_tokens = 32";
            return refuse("rollout", why.to_owned());
        };
        if !settings.prompts.is_multiple_of(prompts) {
            let why = format!("{} is no multiple of train.batch.prompts = {prompts}", settings.prompts);
            refuse("rollout.prompts", why);
        }
        if settings.max_new_tokens as u64 >= setup.config.context {
            let why = format!(
                "{} tokens leave no room for a prompt in a context of {}",
                settings.max_new_tokens, setup.config.context
            );
            refuse("rollout.max_new_tokens", why);
        }
    }

    /// Creates the rollouts of an experiment that has passed [`Rollouts::check_keys`]; `None` if its objectives do not learn from
    /// the policy's own answers.
    pub fn open(setup: &Setup, objectives: &Objectives, data: &TrainingData) -> Option<Rollouts> {
        let experiment = setup.experiment();
        let experiment::Batch::Prompts(prompts) = experiment.train.batch else { return None };
        let settings = experiment.rollout.clone().filter(|_| objectives.needs().rollouts)?;
        Some(Rollouts::new(RolloutSettings {
            settings,
            prompts,
            seed: experiment.seed,
            tokens: forward_tokens(setup, objectives, &*data.train),
            tokenizer: setup.tokenizer.clone(),
            data: data.train.clone(),
        }))
    }

    /// Creates rollouts of which none is drawn yet.
    pub fn new(means: RolloutSettings) -> Rollouts {
        let RolloutSettings { settings, prompts, seed, tokens, tokenizer, data } = means;
        let (state, whole, found, spread, said) = Default::default();
        Rollouts { settings, prompts, seed, tokens, tokenizer, data, state, whole, found, spread, said }
    }

    /// Returns whether nothing of the current rollout is left to learn from.
    pub fn spent(&self) -> bool {
        self.state.sequences.is_empty()
    }

    /// Drops the rest of the current rollout.
    pub fn leave(&mut self) {
        self.state.sequences = Arc::default();
    }

    /// Takes the mean rewards of a rollout drawn since the last call.
    pub fn found(&mut self) -> Vec<(String, f64)> {
        std::mem::take(&mut self.found)
    }

    /// Takes the first answers of a rollout drawn since the last call.
    pub fn said(&mut self) -> Vec<AnswerRecord> {
        std::mem::take(&mut self.said)
    }

    /// Takes the smallest and the largest reward of a rollout drawn since the last call.
    pub fn spread(&mut self) -> Option<(f64, f64)> {
        self.spread.take()
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

    /// Answers `prompts`, scores and measures the answers.
    ///
    /// # Errors
    /// Errors of plugins and of the backend; objectives that keep no answer.
    pub fn draw(&mut self, prompts: &[Sequence], models: &mut RolloutModels<'_>, marker: &CrashMarker) -> Result<()> {
        marker.backend("rollout");
        let policy = Policy { model: models.models.policy, tokenizer: &self.tokenizer, data: &*self.data };
        let samples = self.settings.samples;
        let repeated: Vec<Sequence> =
            prompts.iter().zip(0..).flat_map(|(p, group)| grouped(p, group, samples)).collect();
        let seed = Rng::new(&[self.seed, ANSWERS, self.state.drawn]).next_u64();
        let answers = policy.answer(&repeated, &self.options(seed))?;
        let scores = models.rewards.judge(&answers)?;
        let combined = models.rewards.combined(&scores, answers.len());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        self.found = scores.iter().map(|judge| (format!("reward/{}", judge.name), mean(&judge.scores))).collect();
        let least = combined.iter().copied().fold(f64::INFINITY, f64::min);
        self.spread = Some((least, combined.iter().copied().fold(f64::NEG_INFINITY, f64::max)));
        self.said = answers
            .iter()
            .zip(&combined)
            .take(TOLD)
            .map(|(answer, reward)| AnswerRecord::new(answer, *reward))
            .collect();
        let mut sequences: Vec<Sequence> = answers.into_iter().map(|Answer { sequence, .. }| sequence).collect();
        for (sequence, reward) in sequences.iter_mut().zip(combined) {
            sequence.numbers.insert(names::REWARD.to_owned(), reward);
        }
        self.state = State { drawn: self.state.drawn + 1, sequences: Arc::new(sequences), epoch: 0, taken: 0 };
        let keep = self.measure(models, marker)?;
        let mut kept = keep.iter();
        let sequences = Arc::make_mut(&mut self.state.sequences);
        sequences.retain(|_| *kept.next().unwrap_or(&true));
        if sequences.is_empty() {
            return Err(Error::run("the objectives keep no answer of a rollout"));
        }
        Ok(())
    }

    /// Returns made-up answers to `prompts`, for trial computations and counting, not for training. Every answer has the
    /// longest length that the settings and a context of `context` tokens allow, and repeats its prompt's tokens; rewards and
    /// ends differ from answer to answer. No random number is drawn.
    pub fn made_up(&self, prompts: &[Sequence], context: usize) -> Vec<Sequence> {
        let samples = self.settings.samples;
        let repeated = prompts.iter().zip(0..).flat_map(|(p, group)| grouped(p, group, samples));
        repeated.enumerate().map(|(index, prompt)| self.made_up_answer(prompt, index, context)).collect()
    }

    /// Measures `answers` as a drawn rollout is measured, by the models and the objectives' `prepare`, and returns them with
    /// the results. All answers are kept, and the current rollout does not change; the caller must restore the states of the
    /// objectives.
    ///
    /// # Errors
    /// Errors of plugins and of the backend.
    pub fn measured(
        &self,
        answers: Vec<Sequence>,
        models: &mut RolloutModels<'_>,
        marker: &CrashMarker,
    ) -> Result<Vec<Sequence>> {
        let state = State { sequences: Arc::new(answers), ..State::default() };
        let mut rollout = Rollouts {
            state,
            ..Rollouts::new(RolloutSettings {
                settings: self.settings.clone(),
                prompts: self.prompts,
                seed: self.seed,
                tokens: self.tokens,
                tokenizer: self.tokenizer.clone(),
                data: self.data.clone(),
            })
        };
        rollout.measure(models, marker)?;
        Ok(Arc::unwrap_or_clone(rollout.state.sequences))
    }

    fn made_up_answer(&self, prompt: Sequence, index: usize, context: usize) -> Sequence {
        let asked = prompt.ids.len();
        let length = self.longest(asked, context).saturating_sub(asked).max(1);
        let mut sequence = prompt;
        let answer: Vec<u32> = sequence.ids.iter().cycle().skip(index % asked.max(1)).take(length).copied().collect();
        sequence.ids.extend(answer);
        sequence.supervised = (0..sequence.ids.len()).map(|place| place >= asked).collect();
        let ends = index.is_multiple_of(2);
        if let (true, Some(eos), Some(last)) = (ends, self.tokenizer.eos(), sequence.ids.last_mut()) {
            *last = eos;
        }
        sequence.numbers.insert(names::ENDED.to_owned(), f64::from(u8::from(ends)));
        sequence.numbers.insert(names::REWARD.to_owned(), (index % 3) as f64 / 2.0);
        (sequence.reads_last, sequence.tokens) = (true, Default::default());
        sequence
    }

    fn options(&self, seed: u64) -> GenerateOptions {
        let Rollout { max_new_tokens, temperature, top_p, top_k, .. } = self.settings;
        GenerateOptions { max_tokens: max_new_tokens, temperature, top_p, top_k, seed }
    }

    /// Computes the models' statistics over the whole rollout, calls each objective's `prepare` with them, and stores the
    /// results with the sequences. Returns for each sequence whether the objectives keep it.
    fn measure(&mut self, models: &mut RolloutModels<'_>, marker: &CrashMarker) -> Result<Vec<bool>> {
        let pass = ForwardPass { models: models.models, objectives: models.objectives };
        let sequences = Arc::make_mut(&mut self.state.sequences);
        let (mut packed, mut batches) = (Vec::new(), Vec::new());
        for range in pack::micro_batches(sequences, self.tokens) {
            let part = pack::pack(&sequences[range])?;
            batches.push(pass.run(&part, Keep::Nothing)?.batch);
            packed.push(part);
        }
        let whole = join_batches(&batches, &crate::objectives::micro_batch::join(&packed));
        if let Some(reference) = whole.find(names::REFERENCE_LOGP) {
            let own = Batch::new().with(names::REFERENCE_LOGP, Scope::TOKEN, reference.data.to_vec());
            attach(sequences, &own, &[])?;
        }
        let mut keep = vec![true; sequences.len()];
        let mut answered: Vec<(String, String)> = Vec::new();
        for active in models.objectives.iter_mut() {
            marker.objective(&active.id, "prepare");
            let answer = active.instance.prepare(&whole).map_err(|e| failed(&active.id, "prepare", e))?;
            marker.host();
            contract::prepared(&whole, &answer, true).map_err(|why| {
                let rows: Vec<u64> = sequences.iter().map(|sequence| sequence.row).collect();
                broken(&active.id, "prepare", why, &rows)
            })?;
            let answer = without_hidden(answer, whole.mask()?);
            for array in answer.arrays().iter().filter(|array| array.name != "keep") {
                if let Some((first, name)) = answered.iter().find(|(_, name)| *name == array.name) {
                    let both =
                        format!("the objectives \"{first}\" and \"{}\" both answer `{name}` of a rollout", active.id);
                    return Err(Error::request(both).with_hint("learn from rollouts with one of them"));
                }
            }
            answered.extend(answer.arrays().iter().map(|array| (active.id.clone(), array.name.to_string())));
            let checked =
                attach(sequences, &answer, &["keep"]).map_err(|e| e.context(format!("objective \"{}\"", active.id)));
            checked?;
            if let Some(kept) = answer.find("keep") {
                keep.iter_mut().zip(kept.data.iter()).for_each(|(all, own)| *all &= *own != 0.0);
            }
        }
        Ok(keep)
    }

    /// Returns the next window: the answers to the next prompts of a step, in the current pass's order.
    ///
    /// # Errors
    /// No answer has a token to learn from.
    pub fn window(&mut self) -> Result<Window> {
        let groups: Vec<&[Sequence]> = self.state.sequences.chunk_by(|a, b| group(a) == group(b)).collect();
        let mut order: Vec<usize> = (0..groups.len()).collect();
        Rng::new(&[self.seed, ORDER, self.state.drawn, self.state.epoch as u64]).shuffle(&mut order);
        let chosen = order.iter().skip(self.state.taken).take(self.prompts);
        let window = Window::new(chosen.flat_map(|index| groups[*index].iter().cloned()).collect())?;
        let count = groups.len();
        self.state.taken += self.prompts;
        if self.state.taken >= count {
            (self.state.epoch, self.state.taken) = (self.state.epoch + 1, 0);
        }
        if self.state.epoch >= self.settings.epochs {
            self.leave();
        }
        Ok(window)
    }

    /// Marks the step as complete: a checkpoint saves the state from now on.
    pub fn commit(&mut self) {
        self.whole = self.state.clone();
    }

    /// Writes what a checkpoint needs to continue in the middle of a rollout.
    ///
    /// # Errors
    /// Errors of the file system.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::run(format!("cannot write {}", path.display())).with_cause(e)
        };
        let text = serde_json::to_vec(&self.whole).map_err(|e| failed(e.into()))?;
        fs::write(&path, text).map_err(|e| failed(e.into()))
    }

    /// Restores the rollout of a checkpoint.
    ///
    /// # Errors
    /// A request error that names the file.
    pub fn restore(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::request(format!("cannot read {}", path.display())).with_cause(e)
        };
        let text = files::read(&path).map_err(|e| failed(e.into()))?;
        self.state = serde_json::from_slice(&text).map_err(|e| failed(e.into()))?;
        self.commit();
        Ok(())
    }
}

/// Returns `samples` copies of a prompt as one group.
fn grouped(prompt: &Sequence, group: u64, samples: usize) -> impl Iterator<Item = Sequence> {
    let mut prompt = prompt.clone();
    prompt.numbers.insert(names::GROUP.to_owned(), group as f64);
    std::iter::repeat_n(prompt, samples)
}

fn group(sequence: &Sequence) -> Option<u64> {
    sequence.numbers.get(names::GROUP).map(|group| group.to_bits())
}

/// Sets values to 0 where the mask is 0 and the value is not finite: they are never read, and a checkpoint, which is JSON,
/// cannot store them.
fn without_hidden(mut arrays: Batch<'static>, mask: &[f64]) -> Batch<'static> {
    let hidden = |(value, mask): (&f64, &f64)| *mask == 0.0 && !value.is_finite();
    for array in arrays.arrays().to_vec() {
        if array.scope == Scope::TOKEN && array.data.iter().zip(mask).any(hidden) {
            let shown = array.data.iter().zip(mask).map(|pair| if hidden(pair) { 0.0 } else { *pair.0 });
            arrays = arrays.with(array.name, Scope::TOKEN, shown.collect::<Vec<f64>>());
        }
    }
    arrays
}

/// Stores in every sequence its part of the arrays, except those named in `but`.
fn attach(sequences: &mut [Sequence], arrays: &Batch<'_>, but: &[&str]) -> Result<()> {
    let (count, positions) = (sequences.len(), sequences.iter().map(Sequence::positions).sum::<usize>());
    for array in arrays.arrays().iter().filter(|array| !but.contains(&array.name.as_ref())) {
        let refuse = |what: String| Err(Error::run(format!("`prepare` answered `{}` {what}", array.name)));
        let name = array.name.to_string();
        match array.scope {
            _ if array.cols != 1 => return refuse(format!("with {} columns, where rollouts take one", array.cols)),
            Scope::SEQUENCE if array.data.len() == count => {
                for (sequence, value) in sequences.iter_mut().zip(array.data.iter()) {
                    sequence.numbers.insert(name.clone(), *value);
                }
            }
            Scope::TOKEN if array.data.len() == positions => {
                let mut rest = array.data.as_ref();
                for sequence in sequences.iter_mut() {
                    let (own, after) = rest.split_at(sequence.positions());
                    rest = after;
                    sequence.tokens.insert(name.clone(), own.to_vec());
                }
            }
            Scope::SEQUENCE | Scope::TOKEN => {
                return refuse(format!("with {} values for {count} sequences of {positions} tokens", array.data.len()));
            }
            _ => {
                return refuse(
                    "per rollout; only what belongs to tokens or sequences can be cut into steps".to_owned(),
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(row: u64, length: usize) -> Sequence {
        Sequence {
            ids: vec![1; length],
            supervised: vec![true; length],
            row,
            numbers: [(names::GROUP.to_owned(), row as f64)].into(),
            reads_last: true,
            ..Default::default()
        }
    }

    /// Catches values that are stored with other answers than their own.
    #[test]
    fn what_prepare_answers_rides_with_its_own_sequences() {
        let mut sequences = [sequence(0, 2), sequence(1, 3)];
        let arrays = Batch::new().with("advantage", Scope::TOKEN, vec![1.0, 2.0, 3.0, 4.0, 5.0]).with(
            "length",
            Scope::SEQUENCE,
            vec![7.0, 8.0],
        );
        attach(&mut sequences, &arrays, &[]).unwrap();
        assert_eq!(sequences[1].tokens["advantage"], [3.0, 4.0, 5.0]);
        assert_eq!(sequences[1].numbers["length"], 8.0);
        for bad in [
            Batch::new().with("a", Scope::TOKEN, vec![1.0; 4]),
            Batch::new().with("a", Scope::SEQUENCE, vec![1.0; 3]),
            Batch::new().with("a", Scope::BATCH, vec![1.0]),
        ] {
            assert!(attach(&mut sequences, &bad, &[]).is_err());
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
    fn a_rollout_goes_on_where_its_checkpoint_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = rollouts(1, 2, 1);
        let numbers = [vec![0.1 + 0.2, -1e-300, 3.0], vec![1.0 / 3.0; 3], vec![2.0; 3], vec![0.0; 3]];
        for (sequence, numbers) in Arc::make_mut(&mut first.state.sequences).iter_mut().zip(numbers) {
            sequence.tokens.insert("advantage".to_owned(), numbers);
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
