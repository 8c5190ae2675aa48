//! The prompt of two answers: given apart, repeated in front of the answers, or only there.

use std::collections::BTreeMap;

use serde_json::json;

use super::{ASSISTANT, Content, Message, Part, role};

/// Leaves the prompt in [`Part::Prompt`] and nothing of it in the answers.
///
/// # Errors
/// Answers of which it cannot be told where the prompt ends.
pub fn settle(parts: &mut BTreeMap<Part, Content>) -> Result<(), String> {
    let Some(prompt) = parts.get(&Part::Prompt) else { return take_prompt_out(parts) };
    let asked = match prompt {
        Content::Messages(messages) => messages.clone(),
        Content::Text(text) => json!({"role": "user", "content": text}).as_object().cloned().into_iter().collect(),
    };
    for part in [Part::Chosen, Part::Rejected] {
        let Some(Content::Messages(answer)) = parts.get_mut(&part) else { continue };
        if answer.starts_with(&asked) {
            answer.drain(..asked.len());
        }
        let first = answer.first().map(role).unwrap_or_default();
        if first != ASSISTANT {
            return Err(format!(
                "`{}` begins with the role \"{first}\": give the answer alone, or the prompt's own messages before it",
                part.name()
            ));
        }
    }
    Ok(())
}

/// The prompt is what both conversations begin with, up to their last answers.
fn take_prompt_out(parts: &mut BTreeMap<Part, Content>) -> Result<(), String> {
    let (Some(Content::Messages(chosen)), Some(Content::Messages(rejected))) =
        (parts.get(&Part::Chosen), parts.get(&Part::Rejected))
    else {
        return Err(
            "without `prompt` it cannot be told where in the strings the answers begin; give `prompt`, or make \
                    `chosen` and `rejected` lists of messages"
                .into(),
        );
    };
    let last = |messages: &[Message]| messages.iter().rposition(|m| role(m) == ASSISTANT).unwrap_or_default();
    let most = last(chosen).min(last(rejected));
    let shared = chosen.iter().zip(rejected).take(most).take_while(|(a, b)| a == b).count();
    let answers = |messages: &[Message]| messages.get(shared).is_some_and(|m| role(m) == ASSISTANT);
    if shared == 0 || !answers(chosen) || !answers(rejected) {
        return Err(
            "`chosen` and `rejected` answer no common prompt: both must begin with the same messages and go on \
                    with the assistant's; or give `prompt`"
                .into(),
        );
    }
    let prompt = chosen[..shared].to_vec();
    let answers = [(Part::Chosen, chosen[shared..].to_vec()), (Part::Rejected, rejected[shared..].to_vec())];
    parts.insert(Part::Prompt, Content::Messages(prompt));
    parts.extend(answers.map(|(part, messages)| (part, Content::Messages(messages))));
    Ok(())
}
