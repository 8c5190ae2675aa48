//! Checks token ids that objectives reserve, such as the sentinels of fill-in-the-middle: the model has them, and no text does.

use plugin_api::manifest::{GivenNumber, Requirements};

use crate::{config::Mistakes, data::Examples, setup::Setup};

impl Setup {
    /// Checks that the model's context is large enough for an objective. `key`: the objective's table.
    pub(crate) fn check_least_context(&self, key: &str, requirements: &Requirements, mistakes: &mut Mistakes) {
        let (context, Some(GivenNumber { number, option })) = (self.config.context, &requirements.least_context) else {
            return;
        };
        if *number <= context || !mistakes.are_free(&["model"]) {
            return;
        }
        let longer = match self.model_folder {
            None => "raise model.context",
            Some(_) => "start from a model with a longer one",
        };
        let remedy = if option.is_empty() { longer.to_owned() } else { format!("lower {option}, or {longer}") };
        let why = format!("needs a context length of at least {number} tokens, the model's is {context}; {remedy}");
        mistakes.refuse(&option_of(key, option), why);
    }

    /// Checks that the model's vocabulary has the ids that an objective reserves. `key`: the objective's table.
    pub(crate) fn check_reserved_ids(&self, key: &str, requirements: &Requirements, mistakes: &mut Mistakes) -> bool {
        let (reserved, vocab) = (&requirements.reserved_ids, self.config.vocab);
        let greatest = reserved.iter().map(|one| one.number).max().unwrap_or(0);
        // If the model has a mistake, its shape is a placeholder.
        if greatest < vocab || !mistakes.are_free(&["model", "tokenizer"]) {
            return true;
        }
        let remedy = match self.model_folder {
            None if greatest < u64::from(u32::MAX) => format!("set model.vocab = {}", greatest + 1),
            _ => "choose the ids of tokens that the tokenizer has for this".to_owned(),
        };
        for GivenNumber { number: id, option } in reserved.iter().filter(|one| one.number >= vocab) {
            let why =
                format!("{id} is not an id of the model's vocabulary, 0 to {}; {remedy}", vocab.saturating_sub(1));
            mistakes.refuse(&option_of(key, option), why);
        }
        false
    }

    /// Checks that none of the ids that an objective reserves occurs in `data`.
    pub(crate) fn check_reserved_texts(
        &self,
        key: &str,
        requirements: &Requirements,
        data: &dyn Examples,
        mistakes: &mut Mistakes,
    ) {
        if requirements.reserved_ids.is_empty() {
            return;
        }
        let mut left: Vec<&GivenNumber> = requirements.reserved_ids.iter().collect();
        for span in data.in_order(self.config.context as usize, false) {
            for sequence in data.sequences(span, None, 0) {
                left.retain(|GivenNumber { number: id, option }| {
                    let mut ids = sequence.ids.iter().chain(sequence.context_prompt.iter().flatten());
                    if !ids.any(|own| u64::from(*own) == *id) {
                        return true;
                    }
                    let text = u32::try_from(*id).ok().and_then(|id| self.tokenizer.decode(&[id], false).ok());
                    let shown = text.map(|text| format!(" ({text:?})")).unwrap_or_default();
                    let what = if data.row_text(sequence.row).is_some() { "row" } else { "document" };
                    let why = format!(
                        "the id {id}{shown} occurs in the data, first in {what} {} (counted from 0), and the objective gives it \
                         another meaning; choose an id that no text has, for example beyond the tokenizer's {} tokens with a \
                         larger model.vocab",
                        sequence.row,
                        self.tokenizer.vocab_size()
                    );
                    mistakes.refuse(&option_of(key, option), why);
                    false
                });
            }
            if left.is_empty() {
                return;
            }
        }
    }
}

/// The key of an option of the objective's table `key`; of the table itself if no option is named.
fn option_of(key: &str, option: &str) -> String {
    if option.is_empty() { key.to_owned() } else { format!("{key}.{option}") }
}
