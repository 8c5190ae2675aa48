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
    /// Log-probability of each of the answer's tokens under the distribution that it was drawn from.
    pub logps: Vec<f64>,
    /// Entropy of that distribution, for each token.
    pub entropies: Vec<f64>,
    /// For each of the answer's tokens the number of characters of the answer's text up to its end. A character that is spread over
    /// several tokens counts from the last of them on.
    pub ends: Vec<usize>,
}

/// Returns `values` of an answer's tokens at the positions that predict them, and 0 at all others.
pub(super) fn per_token(sequence: &Sequence, values: &[f64]) -> Vec<f64> {
    let mut all = vec![0.0; sequence.positions()];
    let targets = sequence.supervised.iter().skip(1).zip(all.iter_mut()).filter(|(supervised, _)| **supervised);
    targets.zip(values).for_each(|((_, place), value)| *place = *value);
    all
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
            let mut answer = self.read(prompt, &tokens, ended)?;
            (answer.logps, answer.entropies) = (completion.kept_logps, completion.kept_entropies);
            answer.logps.truncate(room);
            answer.entropies.truncate(room);
            answers.push(answer);
        }
        Ok(answers)
    }

    fn read(&self, prompt: &Sequence, tokens: &[u32], ended: bool) -> Result<Answer> {
        let words = &tokens[..tokens.len() - usize::from(ended)];
        let (text, columns) = match self.data.row_text(prompt.row) {
            Some(row) => (row.prompt, row.columns),
            None => (self.tokenizer.decode(&prompt.ids, true)?, Vec::new()),
        };
        let (completion, mut ends) = self.tokenizer.continuation_with_ends(&prompt.ids, words)?;
        ends.resize(tokens.len(), ends.last().copied().unwrap_or(0));
        let mut numbers = prompt.per_sequence.clone();
        numbers.insert(names::ENDED.to_owned(), f64::from(u8::from(ended)));
        let supervised = prompt.ids.iter().map(|_| false).chain(tokens.iter().map(|_| true));
        Ok(Answer {
            sequence: Sequence {
                ids: prompt.ids.iter().chain(tokens).copied().collect(),
                supervised: supervised.collect(),
                columns: prompt.columns.clone(),
                lists: prompt.lists.clone(),
                row: prompt.row,
                per_sequence: numbers,
                reads_last: true,
                context_prompt: prompt.context_prompt.clone(),
                ..Default::default()
            },
            sample: Sample { prompt: text, completion, ended, columns },
            logps: Vec::new(),
            entropies: Vec::new(),
            ends,
        })
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
        let Answer { sequence, sample, .. } = answer;
        let finish = if sample.ended { Finish::EndOfSequence } else { Finish::MaxTokens };
        let (prompt, text) = (sample.prompt.clone(), sample.completion.clone());
        let tokens = sequence.supervised.iter().filter(|supervised| **supervised).count();
        AnswerRecord { text: SampleText { prompt, text, tokens, finish: finish.as_str() }, reward }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches characters that are counted in bytes, and one spread over several tokens that belongs to the first of them.
    #[test]
    fn every_token_has_the_end_of_its_text() {
        let tokenizer = Tokenizer::bytes().unwrap();
        let (prompt, words) = (tokenizer.encode("a: ").unwrap(), tokenizer.encode("xé!").unwrap());
        let of = |words: &[u32]| tokenizer.continuation_with_ends(&prompt, words).unwrap();
        assert_eq!(of(&words), ("xé!".to_owned(), vec![1, 1, 2, 3]));
        // A token without text, and the beginning of a character that never ends.
        let eos = tokenizer.eos().unwrap();
        assert_eq!(of(&[words[0], eos, words[1]]), ("x\u{fffd}".to_owned(), vec![1, 1, 2]));
        assert_eq!(of(&[words[1], eos]), ("\u{fffd}".to_owned(), vec![1, 1]));
        assert_eq!(of(&[]), (String::new(), vec![]));
    }

    /// Catches numbers that are laid on the position that reads a token instead of the one that predicts it.
    #[test]
    fn numbers_of_an_answer_lie_at_the_positions_of_its_targets() {
        let answer = Sequence {
            ids: vec![1, 2, 3, 4, 5],
            supervised: vec![false, false, true, true, true],
            reads_last: true,
            ..Default::default()
        };
        assert_eq!(per_token(&answer, &[0.1, 0.2, 0.3]), [0.0, 0.1, 0.2, 0.3, 0.0]);
    }
}
