//! The other prompts of rows, behind which the role `context` reads their answers.

use super::Encoder;
use super::supervise::begun_with;
use crate::data::error::{DataError, Result};
use crate::data::rows::kind::RowKind;
use crate::data::rows::row::Row;
use crate::data::rows::set::Tokens;
use crate::data::rows::write::other_prompt::other_prompt;
use crate::data::tokenizer::encode::Placed;

impl Encoder<'_> {
    /// The tokens of each row's other prompt; none without a column of them. They are those before a sampled answer: of the prompt
    /// alone, whereas a row's own prompt is tokenised together with its answer.
    pub(super) fn context_prompts(&self, rows: &[(usize, Row)]) -> Result<Vec<Vec<u32>>> {
        let Some(column) = self.context else { return Ok(Vec::new()) };
        let texts: Vec<String> =
            rows.iter().map(|(_, row)| other_prompt(row, column, self.layout)).collect::<Result<_>>()?;
        let placed = self.tokenizer.encode_placed_by(self.cache, texts.iter().map(String::as_str).collect())?;
        let prompt = |(row, placed): (&Row, Placed)| {
            let tokens =
                Tokens { supervised: vec![false; placed.ids.len()], ids: placed.ids, segment_ends: Vec::new() };
            let ids = begun_with(self.tokenizer.prefix().filter(|_| !self.layout.templates(row)), tokens).ids;
            let refuse = |what| DataError::Json { place: row.place.clone(), key: column.to_owned(), what };
            if ids.is_empty() {
                return Err(refuse("it has no token, so that nothing precedes the answer".to_owned()));
            }
            self.tokenizer
                .within_model(&ids)
                .map_err(|error| refuse(format!("{error}; {}", error.hint().unwrap_or_default())))?;
            Ok(ids)
        };
        rows.iter().map(|(_, row)| row).zip(placed).map(prompt).collect()
    }

    /// Cuts the beginning of a row's other prompt if its answers do not fit behind it, as prompts are cut; returns whether it was
    /// cut. `texts` are the row's own, which fit.
    pub(super) fn fit_context(&self, kind: RowKind, mut prompt: Vec<u32>, texts: &[Tokens]) -> (Vec<u32>, bool) {
        let start = |tokens: &Tokens| tokens.prompt().max(1);
        if let Some(first) = texts.iter().find(|tokens| tokens.prompt() == 0).and_then(|tokens| tokens.ids.first()) {
            // Nothing precedes this token, so it is not a target; behind another prompt it stays in front of those that are.
            prompt.push(*first);
        }
        let answer = texts.iter().map(|tokens| tokens.ids.len().saturating_sub(start(tokens))).max().unwrap_or(0);
        let over = prompt.len().saturating_sub(self.most_tokens(kind).saturating_sub(answer).max(1));
        let first = usize::from(self.tokenizer.prefix().as_ref() == prompt.first() && over + 1 < prompt.len());
        prompt.drain(first..first + over);
        (prompt, over > 0)
    }
}
