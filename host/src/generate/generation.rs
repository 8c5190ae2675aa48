//! Samples in progress: waiting prompts get free slots of the cache, and all active samples advance together.

use std::collections::{BTreeMap, VecDeque};

use telos_random::Rng;

use super::draw;
use super::options::{Completion, Drawn, Finish, GenerateOptions};
use crate::device::Tensor;
use crate::error::{Error, Result};
use crate::model::compute::cache::KvCache;
use crate::model::{BatchView, Model};

/// Samples that are generated at the same time, unless [`Extent`] says otherwise.
pub const SLOTS: usize = 64;

/// Maximum prompt tokens per forward pass.
const PREFILL_TOKENS: usize = 4096;

/// Separates the random streams of draws from all others with the same seed.
const DRAW_STREAM: u64 = 0x5A3F;

pub(super) fn check<'p>(
    model: &Model,
    prompts: impl Iterator<Item = &'p Vec<i32>>,
    options: &GenerateOptions,
) -> Result<()> {
    let config = model.config();
    if !config.outputs.tokens {
        let what = "the model is a reward model or critic: it has no language-model head to generate with";
        return Err(Error::request(what).with_hint("name the language model that it was trained from"));
    }
    if !config.continues_texts() {
        let what = "the model's attention mask is bidirectional: a token depends on those after it, so that it cannot continue a text";
        return Err(Error::request(what).with_hint("name a model whose mask is causal or prefix"));
    }
    for prompt in prompts {
        if prompt.is_empty() {
            return Err(Error::request("the prompt has no tokens"));
        }
        if prompt.len() as u64 > config.context {
            let message =
                format!("the prompt has {} tokens, the model's context length {}", prompt.len(), config.context);
            return Err(Error::request(message).with_hint("shorten the prompt"));
        }
        if let Some(token) = prompt.iter().find(|token| **token < 0 || **token as u64 >= config.vocab) {
            let message = format!("the prompt contains token id {token}, the model's vocabulary has {}", config.vocab);
            return Err(Error::request(message).with_hint("use the tokenizer that the model was trained with"));
        }
    }
    let GenerateOptions { max_tokens, temperature, top_p, .. } = *options;
    if max_tokens == 0 {
        return Err(Error::request("max_tokens is 0, expected at least 1"));
    }
    if !(temperature >= 0.0 && temperature.is_finite()) {
        return Err(Error::request(format!("temperature is {temperature}, expected a number from 0")));
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(Error::request(format!("top_p is {top_p}, expected a number above 0 and at most 1")));
    }
    Ok(())
}

/// A sample being continued.
struct Active {
    sample: usize,
    slot: usize,
    /// Tokens in the cache.
    length: usize,
    /// The last token drawn; the model has not read it yet.
    last: i32,
    tokens: Vec<i32>,
    logps: Vec<f64>,
    kept_logps: Vec<f64>,
    kept_entropies: Vec<f64>,
}

/// A waiting sample that gets a slot.
struct Admitted {
    sample: usize,
    slot: usize,
    /// Index, among those admitted with it, of the sample that runs its prompt: itself, or the first with the same prompt.
    leader: usize,
}

/// Which of the prompts are continued, and how many at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The indices of the prompts to continue, ascending. A draw depends on this index, whichever other prompts are continued.
    pub samples: Vec<usize>,
    /// Samples that are generated at the same time, at least 1.
    pub slots: usize,
}

impl Extent {
    /// All of this number of prompts.
    pub fn all(prompts: usize) -> Self {
        Self { samples: (0..prompts).collect(), slots: SLOTS }
    }
}

/// Prompts that are being continued.
pub struct Generation<'a> {
    model: &'a Model,
    prompts: &'a [Vec<i32>],
    options: &'a GenerateOptions,
    cache: KvCache,
    waiting: VecDeque<usize>,
    free: Vec<usize>,
    active: Vec<Active>,
    /// Samples that finished since the last call of `advance`.
    finished: Vec<(usize, Completion)>,
    on_token: &'a mut dyn FnMut(Drawn),
}

impl<'a> Generation<'a> {
    /// Prepares a cache for `prompts`, and computes nothing yet.
    ///
    /// # Errors
    /// As [`generate`](super::generate).
    pub fn new(
        model: &'a Model,
        prompts: &'a [Vec<i32>],
        options: &'a GenerateOptions,
        extent: Extent,
        on_token: &'a mut dyn FnMut(Drawn),
    ) -> Result<Generation<'a>> {
        let waiting = VecDeque::from(extent.samples);
        let continued = || waiting.iter().filter_map(|sample| prompts.get(*sample));
        check(model, continued(), options)?;
        let slots = waiting.len().min(extent.slots).max(1);
        let longest = continued().map(Vec::len).max().unwrap_or(0);
        // The model never reads the last token drawn, so it needs no room.
        let capacity = longest.saturating_add(options.max_tokens).saturating_sub(1) as u64;
        let capacity = capacity.min(model.config().context).max(1);
        Ok(Generation {
            model,
            prompts,
            options,
            cache: KvCache::new(model, slots as u64, capacity)?,
            waiting,
            free: (0..slots).collect(),
            active: Vec::new(),
            finished: Vec::new(),
            on_token,
        })
    }

    /// Whether every sample is finished.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// Gives free slots to waiting prompts, runs these, and draws one more token for every active sample. Returns the samples
    /// that have finished, each with its index.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn advance(&mut self) -> Result<Vec<(usize, Completion)>> {
        self.admit()?;
        self.step()?;
        Ok(std::mem::take(&mut self.finished))
    }

    /// Runs waiting prompts in free slots and draws their first tokens.
    fn admit(&mut self) -> Result<()> {
        let prompts = self.prompts;
        while !self.free.is_empty() && !self.waiting.is_empty() {
            let admitted = self.take(prompts);
            let hidden = self.prefill(prompts, &admitted)?;
            let first = self.active.len();
            self.active.extend(admitted.iter().map(|admitted| Active {
                sample: admitted.sample,
                slot: admitted.slot,
                length: prompts[admitted.sample].len(),
                last: 0,
                tokens: Vec::new(),
                logps: Vec::new(),
                kept_logps: Vec::new(),
                kept_entropies: Vec::new(),
            }));
            self.draw(&hidden, first)?;
        }
        Ok(())
    }

    /// Assigns free slots to waiting samples, up to the number of prompt tokens that one forward pass takes.
    fn take(&mut self, prompts: &[Vec<i32>]) -> Vec<Admitted> {
        let (mut admitted, mut known, mut tokens) = (Vec::new(), BTreeMap::new(), 0);
        while let (Some(sample), Some(slot)) = (self.waiting.front().copied(), self.free.last().copied()) {
            let prompt = prompts[sample].as_slice();
            if !known.contains_key(prompt) {
                if !known.is_empty() && tokens + prompt.len() > PREFILL_TOKENS {
                    break;
                }
                tokens += prompt.len();
            }
            let leader = *known.entry(prompt).or_insert(admitted.len());
            admitted.push(Admitted { sample, slot, leader });
            self.waiting.pop_front();
            self.free.pop();
        }
        admitted
    }

    /// Runs each prompt once, for the first sample that has it; the other samples' slots get copies of its keys and values.
    /// Returns the last hidden state of every sample.
    fn prefill(&self, prompts: &[Vec<i32>], admitted: &[Admitted]) -> Result<Tensor> {
        let (mut packed, mut slots, mut last) = (Packed::new(), Vec::new(), Vec::new());
        for (index, one) in admitted.iter().enumerate() {
            if one.leader == index {
                packed.push(&prompts[one.sample]);
                slots.push(one.slot as u64);
            }
            // A leader comes before the samples that share its prompt.
            last.push(if one.leader == index { packed.tokens.len() as i32 - 1 } else { last[one.leader] });
        }
        let hidden = self.model.prefill(packed.view(), &self.cache, &slots)?;
        for (index, one) in admitted.iter().enumerate() {
            if one.leader != index {
                let (from, length) = (admitted[one.leader].slot, prompts[one.sample].len());
                self.model.copy_slot(&self.cache, from as u64, one.slot as u64, length as u64)?;
            }
        }
        self.model.gather(&hidden, &last)
    }

    /// Runs the last tokens of all active samples and draws the next ones.
    fn step(&mut self) -> Result<()> {
        if self.active.is_empty() {
            return Ok(());
        }
        let column = |of: fn(&Active) -> i32| self.active.iter().map(of).collect::<Vec<i32>>();
        let tokens = column(|a| a.last);
        let slots = column(|a| a.slot as i32);
        let lengths = column(|a| a.length as i32);
        let hidden = self.model.decode(&tokens, &slots, &lengths, &self.cache)?;
        for active in &mut self.active {
            active.length += 1;
        }
        self.draw(&hidden, 0)
    }

    /// Draws a token for each active sample from index `first` on; finished samples free their slots.
    fn draw(&mut self, hidden: &Tensor, first: usize) -> Result<()> {
        let logits = self.model.logits(hidden)?;
        let GenerateOptions { temperature, top_k, top_p, .. } = *self.options;
        let sampling = draw::Sampling { temperature, top_k, top_p };
        let draws = draw::sample(self.model, &logits, &sampling, &self.noise(first))?;
        for (active, draw) in self.active[first..].iter_mut().zip(draws) {
            let draw::Draw { token, logp, kept_logp, kept_entropy } = draw;
            active.last = token;
            active.tokens.push(token);
            active.logps.push(logp);
            active.kept_logps.push(kept_logp);
            active.kept_entropies.push(kept_entropy);
            (self.on_token)(Drawn { sample: active.sample, token, logp });
        }
        self.collect_finished();
        Ok(())
    }

    fn noise(&self, first: usize) -> Vec<f64> {
        self.active[first..].iter().map(|active| noise(self.options.seed, active.sample, active.length)).collect()
    }

    /// Moves finished samples to the results and frees their slots.
    fn collect_finished(&mut self) {
        for active in std::mem::take(&mut self.active) {
            match finish(self.model, active.last, active.tokens.len(), active.length, self.options.max_tokens) {
                Some(finish) => {
                    self.free.push(active.slot);
                    let Active { sample, tokens, logps, kept_logps, kept_entropies, .. } = active;
                    let completion = Completion { tokens, logps, kept_logps, kept_entropies, finish };
                    self.finished.push((sample, completion));
                }
                None => self.active.push(active),
            }
        }
    }
}

/// Returns why a continuation of `drawn` tokens ends after `last`, if it does; `length` tokens are in the cache.
pub(super) fn finish(model: &Model, last: i32, drawn: usize, length: usize, max_tokens: usize) -> Option<Finish> {
    let config = model.config();
    if config.eos.iter().any(|eos| i64::from(*eos) == i64::from(last)) {
        Some(Finish::EndOfSequence)
    } else if drawn >= max_tokens {
        Some(Finish::MaxTokens)
    } else if length as u64 >= config.context {
        Some(Finish::Context)
    } else {
        None
    }
}

/// The random number of a draw: 24 bits, exact in f32, so that every backend draws with the same noise, and never 1.
pub(super) fn noise(seed: u64, sample: usize, length: usize) -> f64 {
    (Rng::new(&[seed, DRAW_STREAM, sample as u64, length as u64]).next_u64() >> 40) as f64 / (1_u64 << 24) as f64
}

/// Prompts packed end to end.
pub(super) struct Packed {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    offsets: Vec<i32>,
    lengths: Vec<i32>,
}

impl Packed {
    pub(super) fn new() -> Self {
        Packed { tokens: Vec::new(), positions: Vec::new(), offsets: vec![0], lengths: Vec::new() }
    }

    pub(super) fn push(&mut self, prompt: &[i32]) {
        self.tokens.extend_from_slice(prompt);
        self.positions.extend(0..prompt.len() as i32);
        self.offsets.push(self.tokens.len() as i32);
        self.lengths.push(prompt.len() as i32);
    }

    pub(super) fn view(&self) -> BatchView<'_> {
        let Packed { tokens, positions, offsets, lengths } = self;
        BatchView { tokens, positions, offsets, prompts: lengths }
    }
}
