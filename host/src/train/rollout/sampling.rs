//! Sampling: the policy's answers to prompts, as rollouts learn from them and evaluations score them.

use plugin_api::{batch::names, reward::Sample};

use crate::{
    data::{Examples, Sequence, Tokenizer},
    error::Result,
    generate::{Finish, GenerateOptions, generate, text::SampleText},
    model::Model,
};

/// An answer as tokens and as text.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Prompt and answer as tokens; the answer's tokens are supervised, and the last one is read too.
    pub sequence: Sequence,
    /// Prompt and answer as text, with the row's columns.
    pub sample: Sample,
}

/// The policy, with what it needs to answer prompts.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Where the prompts come from.
    pub data: &'a dyn Examples,
}

impl Policy<'_> {
    /// Answers prompts, each a sequence without an answer.
    ///
    /// # Errors
    /// A prompt that leaves no room in the context; errors of the backend.
    pub fn answer(&self, prompts: &[Sequence], options: &GenerateOptions) -> Result<Vec<Answer>> {
        let ids: Vec<Vec<i32>> = prompts.iter().map(|p| p.ids.iter().map(|id| *id as i32).collect()).collect();
        let completions = generate(self.model, &ids, options, &mut |_| {})?;
        let mut answers = Vec::with_capacity(prompts.len());
        for (prompt, completion) in prompts.iter().zip(completions) {
            let mut tokens: Vec<u32> = completion.tokens.iter().map(|id| *id as u32).collect();
            // Every token is read when the answer is scored, so all of them must have a position.
            let room = (self.model.config().context as usize).saturating_sub(prompt.ids.len());
            let ended = completion.finish == Finish::EndOfSequence && tokens.len() <= room;
            tokens.truncate(room);
            answers.push(self.read(prompt, &tokens, ended)?);
        }
        Ok(answers)
    }

    fn read(&self, prompt: &Sequence, tokens: &[u32], ended: bool) -> Result<Answer> {
        let words = &tokens[..tokens.len() - usize::from(ended)];
        let (text, columns) = match self.data.row_text(prompt.row) {
            Some(row) => (row.prompt.clone(), row.columns.clone()),
            None => (self.tokenizer.decode(&prompt.ids, true)?, Vec::new()),
        };
        let completion = self.text(&prompt.ids, words)?;
        let mut numbers = prompt.per_sequence.clone();
        numbers.insert(names::ENDED.to_owned(), f64::from(u8::from(ended)));
        let supervised = prompt.ids.iter().map(|_| false).chain(tokens.iter().map(|_| true));
        Ok(Answer {
            sequence: Sequence {
                ids: prompt.ids.iter().chain(tokens).copied().collect(),
                supervised: supervised.collect(),
                columns: prompt.columns.clone(),
                row: prompt.row,
                per_sequence: numbers,
                reads_last: true,
                context_prompt: prompt.context_prompt.clone(),
                ..Default::default()
            },
            sample: Sample { prompt: text, completion, ended, columns },
        })
    }
}

impl Policy<'_> {
    /// Returns the text of `words` after `prompt`, without special tokens. The decoder reads the prompt too: at the beginning
    /// of a text some tokenizers drop a word's leading space, which would make prompt and completion together a different text.
    fn text(&self, prompt: &[u32], words: &[u32]) -> Result<String> {
        let mut decoder = self.tokenizer.stream(false);
        for id in prompt {
            decoder.push(*id)?;
        }
        let mut text = String::new();
        for id in words.iter().filter(|id| !self.tokenizer.is_special(**id)) {
            text += &decoder.push(*id)?;
        }
        Ok(text + &decoder.finish()?)
    }
}

/// An answer as recorded for the user.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRecord {
    /// Prompt, answer, its length and why it ended.
    pub text: SampleText,
    /// The reward that rollouts learn from.
    pub reward: f64,
}

impl AnswerRecord {
    /// Creates a record of an answer and its reward. Prompts leave room for the longest answer, so an answer that did not end
    /// was truncated at the token limit.
    pub fn new(answer: &Answer, reward: f64) -> AnswerRecord {
        let Answer { sequence, sample } = answer;
        let finish = if sample.ended { Finish::EndOfSequence } else { Finish::MaxTokens };
        let (prompt, text) = (sample.prompt.clone(), sample.completion.clone());
        let tokens = sequence.supervised.iter().filter(|supervised| **supervised).count();
        AnswerRecord { text: SampleText { prompt, text, tokens, finish: finish.as_str() }, reward }
    }
}
