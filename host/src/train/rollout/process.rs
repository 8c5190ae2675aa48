//! Process reward models: the probability that each segment of an answer is right.
//!
//! The segments are found in the answer's text by the separator that the model was trained with; the end of the answer is the end
//! of a segment too. The model reads an answer without its end-of-text token and, as in its training, with a separator after the last
//! segment; it is left out only where the context is full.

use crate::{
    config::experiment::Aggregate,
    data::{Sequence, Tokenizer, pack},
    error::Result,
    model::{Keep, Model},
    objectives::micro_batch::view,
};

use super::sampling::Answer;

/// A process reward model.
pub(super) struct ProcessModel {
    model: Box<Model>,
    separator: String,
    /// The separator's own tokens.
    ids: Vec<u32>,
    aggregate: Aggregate,
}

/// An answer as the model reads it.
struct Read {
    sequence: Sequence,
    /// For each segment the answer's token in which it ends, and the position whose score is the segment's.
    segments: Vec<(usize, usize)>,
}

impl ProcessModel {
    /// Creates it from the model, what separates segments, and how their scores become an answer's.
    ///
    /// # Errors
    /// A separator that cannot be tokenised.
    pub(super) fn new(
        model: Box<Model>,
        separator: &str,
        aggregate: Aggregate,
        tokenizer: &Tokenizer,
    ) -> Result<ProcessModel> {
        let encoded = tokenizer.encode_placed(vec![separator])?.pop();
        let ids = encoded.map(|placed| placed.ids).unwrap_or_default();
        Ok(ProcessModel { model, separator: separator.to_owned(), ids, aggregate })
    }

    /// Returns the score of each answer and, for each of its tokens, the probability of the segment that ends there; 0 where none
    /// does. At most `most` positions are computed at a time.
    ///
    /// # Errors
    /// Errors of the backend.
    pub(super) fn score(&self, answers: &[Answer], most: usize) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        let read: Vec<Read> = answers.iter().map(|answer| self.read(answer)).collect();
        let sequences: Vec<Sequence> = read.iter().map(|read| read.sequence.clone()).collect();
        let (mut scores, mut tokens) = (Vec::new(), Vec::new());
        for range in pack::micro_batches(&sequences, most) {
            let packed = pack::pack(&sequences[range.clone()])?;
            let scalars = self.model.scalars(&self.model.forward(view(&packed), Keep::Nothing)?)?;
            for ((index, begin), read) in range.clone().zip(&packed.offsets).zip(&read[range]) {
                let score = |position: usize| scalars.get(*begin as usize + position).map_or(f64::NAN, |s| sigmoid(*s));
                let of_segments: Vec<f64> = read.segments.iter().map(|(_, position)| score(*position)).collect();
                let mut own = vec![0.0; answers[index].ends.len()];
                for ((token, _), score) in read.segments.iter().zip(&of_segments) {
                    own.iter_mut().skip(*token).take(1).for_each(|value| *value = *score);
                }
                scores.push(aggregate(self.aggregate, &of_segments));
                tokens.push(own);
            }
        }
        Ok((scores, tokens))
    }

    fn read(&self, answer: &Answer) -> Read {
        let Answer { sequence, sample, ends, .. } = answer;
        let prompt = sequence.ids.len() - ends.len();
        let words = ends.len() - usize::from(sample.ended);
        let mut ids = sequence.ids[..prompt + words].to_vec();
        let mut segments: Vec<(usize, usize)> = Vec::new();
        for end in separated(&sample.completion, &self.separator) {
            // A token in which two segments end has the score of the last one.
            let token = ends[..words].partition_point(|own| *own < end);
            if token < words && segments.last().is_none_or(|(last, _)| *last < token) {
                segments.push((token, prompt + token));
            }
        }
        let last_word = (0..words).rev().find(|token| *token == 0 || ends[*token] > ends[token - 1]);
        if last_word.is_none_or(|word| segments.last().is_none_or(|(last, _)| *last < word)) {
            let room = (self.model.config().context as usize).saturating_sub(ids.len());
            ids.extend(self.ids.iter().take(if room >= self.ids.len() { room } else { 0 }));
            segments.push((ends.len().saturating_sub(1), ids.len() - 1));
        } else if let Some((token, _)) = segments.last_mut() {
            // The answer's own last token, which may be the one that ends it.
            *token = ends.len() - 1;
        }
        let supervised = (0..ids.len()).map(|n| n >= prompt).collect();
        Read {
            sequence: Sequence { ids, supervised, row: sequence.row, reads_last: true, ..Default::default() },
            segments,
        }
    }
}

/// Returns where the segments of a text end, in characters: after each separator.
fn separated(text: &str, separator: &str) -> Vec<usize> {
    if separator.is_empty() {
        return Vec::new();
    }
    let ends = text.match_indices(separator).map(|(at, _)| at + separator.len());
    ends.map(|end| text[..end].chars().count()).collect()
}

fn aggregate(by: Aggregate, scores: &[f64]) -> f64 {
    match by {
        Aggregate::Min => scores.iter().copied().fold(f64::INFINITY, f64::min),
        Aggregate::Mean => scores.iter().sum::<f64>() / scores.len().max(1) as f64,
        Aggregate::Last => scores.last().copied().unwrap_or(0.0),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches places in bytes, an empty separator that never ends, and separators that overlap.
    #[test]
    fn segments_end_after_their_separators() {
        assert_eq!(separated("é b  c", " "), [2, 4, 5]);
        assert_eq!(separated("a\n\nb", "\n\n"), [3]);
        assert_eq!(separated("aaa", "aa"), [2]);
        assert_eq!(separated("abc", ""), [0; 0]);
    }

    /// Catches a mean that is a sum, the best step in place of the worst, and the first one in place of the last.
    #[test]
    fn scores_of_steps_become_one() {
        let scores = [0.5, 0.25, 0.75];
        assert_eq!(
            [Aggregate::Min, Aggregate::Mean, Aggregate::Last].map(|by| aggregate(by, &scores)),
            [0.25, 0.5, 0.75]
        );
        assert_eq!((sigmoid(0.0), sigmoid(-2000.0), sigmoid(2000.0)), (0.5, 0.0, 1.0));
    }
}
