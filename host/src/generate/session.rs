//! One conversation with a model: its cached keys and values are kept from one answer to the next.

use std::ops::ControlFlow;

use plugin_api::manifest::AttentionMask;

use super::draw;
use super::generation::{Packed, check, finish, noise};
use super::options::{Drawn, Finish, GenerateOptions};
use crate::device::Tensor;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::compute::cache::KvCache;

/// A prompt is run whole if it has fewer than this many times the tokens that the cache lacks: a token costs about this much
/// more alone than among many.
const RUN_WHOLE: usize = 8;

/// Smallest cache, in tokens.
const LEAST_CAPACITY: u64 = 16;

/// Continues a text that grows, such as a conversation.
pub struct Session<'a> {
    model: &'a Model,
    cache: Option<KvCache>,
    /// The tokens whose keys and values are in the cache.
    cached: Vec<i32>,
}

/// An answer's tokens and why it ended; `None`: the caller stopped it.
pub type Answered = (Vec<i32>, Option<Finish>);

impl<'a> Session<'a> {
    /// A session without a text.
    pub fn new(model: &'a Model) -> Self {
        Self { model, cache: None, cached: Vec::new() }
    }

    /// Continues `prompt`. Tokens that it shares with the text before are not computed again, if few others follow. `on_token`
    /// is called with each token when it is drawn, and decides whether to go on.
    ///
    /// # Errors
    /// As [`generate`](super::generate).
    pub fn answer(
        &mut self,
        prompt: &[i32],
        options: &GenerateOptions,
        on_token: &mut dyn FnMut(Drawn) -> ControlFlow<()>,
    ) -> Result<Answered> {
        check(self.model, [prompt.to_vec()].iter(), options)?;
        let mut hidden = self.read(prompt)?;
        let mut tokens = Vec::new();
        loop {
            let logits = self.model.logits(&hidden)?;
            let sampling =
                draw::Sampling { temperature: options.temperature, top_k: options.top_k, top_p: options.top_p };
            let noise = [noise(options.seed, 0, self.cached.len())];
            let draws = draw::sample(self.model, &logits, &sampling, &noise)?;
            let draw = draws.first().ok_or_else(|| Error::run("no token was drawn"))?;
            tokens.push(draw.token);
            let go_on = on_token(Drawn { sample: 0, token: draw.token, logp: draw.logp });
            let finish = finish(self.model, draw.token, tokens.len(), self.cached.len(), options.max_tokens);
            if finish.is_some() || go_on.is_break() {
                return Ok((tokens, finish));
            }
            hidden = self.append(draw.token)?;
        }
    }

    /// Brings the cache to hold exactly `prompt`; returns the last hidden state.
    fn read(&mut self, prompt: &[i32]) -> Result<Tensor> {
        let shared = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        // The last token is run in any case, because its hidden state is needed.
        let shared = shared.min(prompt.len() - 1);
        let fits = self.cache.as_ref().is_some_and(|cache| prompt.len() as u64 <= cache.capacity());
        // With a prefix mask, the tokens of a prompt attend to each other.
        let whole = self.model.config().attention == AttentionMask::PREFIX;
        let few = (prompt.len() - shared).saturating_mul(RUN_WHOLE) <= prompt.len();
        self.cached.truncate(shared);
        if fits && few && !whole {
            let mut last = None;
            for token in &prompt[shared..] {
                last = Some(self.append(*token)?);
            }
            return last.ok_or_else(|| Error::request("the prompt has no tokens"));
        }
        let (mut packed, last) = (Packed::new(), prompt.len() as i32 - 1);
        packed.push(prompt);
        self.cached.clear();
        let model = self.model;
        let hidden = model.prefill(packed.view(), self.room(prompt.len())?, &[0])?;
        self.cached.extend(prompt);
        model.gather(&hidden, &[last])
    }

    /// Runs one more token.
    fn append(&mut self, token: i32) -> Result<Tensor> {
        let length = self.cached.len();
        let (model, cache) = (self.model, self.room(length + 1)?);
        let hidden = model.decode(&[token], &[0], &[length as i32], cache)?;
        self.cached.push(token);
        Ok(hidden)
    }

    /// Returns a cache with room for `tokens`, with what is cached.
    fn room(&mut self, tokens: usize) -> Result<&KvCache> {
        let tokens = tokens as u64;
        if self.cache.as_ref().is_none_or(|cache| cache.capacity() < tokens) {
            let capacity = tokens.saturating_mul(2).max(LEAST_CAPACITY).min(self.model.config().context.max(tokens));
            let larger = KvCache::new(self.model, 1, capacity)?;
            if let Some(cache) = self.cache.as_ref().filter(|_| !self.cached.is_empty()) {
                self.model.copy_cache(cache, &larger, self.cached.len() as u64)?;
            }
            self.cache = Some(larger);
        }
        self.cache.as_ref().ok_or_else(|| Error::run("there is no cache"))
    }
}
