//! Generation: each distinct prompt runs once, packed with others; then all samples advance together, one token at a time, over
//! cached keys and values.
//!
//! Works on token ids only, not on text or stop strings. A draw depends only on (seed, sample, position), so samples do not
//! depend on what else is generated at the same time.
//!
//! [`saved_model`](crate::inference::saved_model) opens a model outside of a run, for generation and for evaluation on text;
//! [`evaluate_rows`](crate::inference::evaluate_rows) evaluates it on rows.

mod draw;
pub mod text;

use std::collections::{BTreeMap, VecDeque};

use telos_random::Rng;

use crate::device::Tensor;
use crate::error::{Error, Result};
use crate::model::compute::cache::KvCache;
use crate::model::{BatchView, Model};

/// Sampling options.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Maximum tokens of a continuation, including the end token.
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// Draw from the smallest set of tokens with this probability; 1: all.
    pub top_p: f64,
    /// Draw from the k most probable tokens; 0: all.
    pub top_k: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self { max_tokens: 64, temperature: 1.0, top_p: 1.0, top_k: 0, seed: 0 }
    }
}

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Its last token ends the sequence.
    EndOfSequence,
    /// It has the maximum number of tokens.
    MaxTokens,
    /// Prompt and continuation fill the model's context length.
    Context,
}

impl Finish {
    /// Returns the reason in words, for the terminal and for JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::EndOfSequence => "end of sequence",
            Finish::MaxTokens => "max tokens",
            Finish::Context => "context full",
        }
    }
}

/// One continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its tokens, including an end token.
    pub tokens: Vec<i32>,
    /// Log-probability of each under the whole softmax at the temperature (at 1 if the temperature is 0).
    pub logps: Vec<f64>,
    /// Log-probability of each under the distribution that it was drawn from: the softmax at the temperature, truncated by
    /// `top_k` and `top_p` and renormalised over the remaining tokens. 0 if the temperature is 0; equal to `logps` without
    /// truncation.
    pub kept_logps: Vec<f64>,
    /// Entropy of that distribution in nats, at each token; 0 if the temperature is 0.
    pub kept_entropies: Vec<f64>,
    /// Why it ended.
    pub finish: Finish,
}

/// A token, reported when it is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drawn {
    /// Index of the prompt.
    pub sample: usize,
    /// The token.
    pub token: i32,
    /// Its log-probability.
    pub logp: f64,
}

/// Samples that are generated at the same time.
pub const SLOTS: usize = 64;

/// Maximum prompt tokens per forward pass.
const PREFILL_TOKENS: usize = 4096;

/// Separates the random streams of draws from all others with the same seed.
const DRAW_STREAM: u64 = 0x5A3F;

/// Continues every prompt; calls `on_token` with each token when it is drawn.
///
/// # Errors
/// A request error for an empty prompt, one that leaves no room in the model's context length, a token outside the vocabulary, or
/// options out of range; errors of the backend.
pub fn generate(
    model: &Model,
    prompts: &[Vec<i32>],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(Drawn),
) -> Result<Vec<Completion>> {
    check(model, prompts, options)?;
    let mut state = Generation::new(model, prompts, options, on_token)?;
    while !state.waiting.is_empty() || !state.active.is_empty() {
        state.admit(prompts)?;
        state.step()?;
    }
    let done: Option<Vec<Completion>> = state.done.into_iter().collect();
    done.ok_or_else(|| Error::run("generate: a sample was never finished"))
}

/// Allocates all that [`generate`] uses at a time: runs the first prompts and one token for every sample over a cache of full
/// size, and discards the tokens drawn.
///
/// # Errors
/// As [`generate`].
pub fn reach_peak_memory(model: &Model, prompts: &[Vec<i32>], max_tokens: usize) -> Result<()> {
    let options = GenerateOptions { max_tokens, ..GenerateOptions::default() };
    check(model, prompts, &options)?;
    let mut ignore = |_| {};
    let mut state = Generation::new(model, prompts, &options, &mut ignore)?;
    state.admit(prompts)?;
    state.step()
}

fn check(model: &Model, prompts: &[Vec<i32>], options: &GenerateOptions) -> Result<()> {
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

struct Generation<'a> {
    model: &'a Model,
    options: &'a GenerateOptions,
    cache: KvCache,
    waiting: VecDeque<usize>,
    free: Vec<usize>,
    active: Vec<Active>,
    done: Vec<Option<Completion>>,
    on_token: &'a mut dyn FnMut(Drawn),
}

impl<'a> Generation<'a> {
    fn new(
        model: &'a Model,
        prompts: &[Vec<i32>],
        options: &'a GenerateOptions,
        on_token: &'a mut dyn FnMut(Drawn),
    ) -> Result<Generation<'a>> {
        let context = model.config().context as usize;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        // The model never reads the last token drawn, so it needs no room.
        let capacity = context.min(longest.saturating_add(options.max_tokens).saturating_sub(1)).max(1);
        let slots = prompts.len().min(SLOTS);
        Ok(Generation {
            model,
            options,
            cache: KvCache::new(model, slots as u64, capacity as u64)?,
            waiting: (0..prompts.len()).collect(),
            free: (0..slots).collect(),
            active: Vec::new(),
            done: vec![None; prompts.len()],
            on_token,
        })
    }

    /// Runs waiting prompts in free slots and draws their first tokens.
    fn admit(&mut self, prompts: &[Vec<i32>]) -> Result<()> {
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
        let seed = self.options.seed;
        let draw = |active: &Active| {
            let key = [seed, DRAW_STREAM, active.sample as u64, active.length as u64];
            // 24 bits: exact in f32, so that every backend draws with the same noise, and never 1.
            (Rng::new(&key).next_u64() >> 40) as f64 / (1_u64 << 24) as f64
        };
        self.active[first..].iter().map(draw).collect()
    }

    /// Moves finished samples to the results and frees their slots.
    fn collect_finished(&mut self) {
        let (config, max_tokens) = (self.model.config(), self.options.max_tokens);
        let finish = |active: &Active| {
            if config.eos.iter().any(|eos| i64::from(*eos) == i64::from(active.last)) {
                Some(Finish::EndOfSequence)
            } else if active.tokens.len() >= max_tokens {
                Some(Finish::MaxTokens)
            } else if active.length as u64 >= config.context {
                Some(Finish::Context)
            } else {
                None
            }
        };
        for active in std::mem::take(&mut self.active) {
            match finish(&active) {
                Some(finish) => {
                    self.free.push(active.slot);
                    let Active { sample, tokens, logps, kept_logps, kept_entropies, .. } = active;
                    self.done[sample] = Some(Completion { tokens, logps, kept_logps, kept_entropies, finish });
                }
                None => self.active.push(active),
            }
        }
    }
}

/// Prompts packed end to end.
struct Packed {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    offsets: Vec<i32>,
    lengths: Vec<i32>,
}

impl Packed {
    fn new() -> Self {
        Packed { tokens: Vec::new(), positions: Vec::new(), offsets: vec![0], lengths: Vec::new() }
    }

    fn push(&mut self, prompt: &[i32]) {
        self.tokens.extend_from_slice(prompt);
        self.positions.extend(0..prompt.len() as i32);
        self.offsets.push(self.tokens.len() as i32);
        self.lengths.push(prompt.len() as i32);
    }

    fn view(&self) -> BatchView<'_> {
        let Packed { tokens, positions, offsets, lengths } = self;
        BatchView { tokens, positions, offsets, prompts: lengths }
    }
}
