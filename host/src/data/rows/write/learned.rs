//! Decides which messages are learned, by the flags of a message, under the keys that other tools use.

use serde_json::Value;

use crate::data::rows::message::{ASSISTANT, Message, role};

/// Keys whose value 1 or true means that a message is learned, and 0 or false that it is not.
const LEARNED: [&str; 7] = ["weight", "train", "training", "trainable", "train_on_turn", "supervised", "loss"];
/// The key with the opposite meaning.
const MASKED: &str = "masked";
/// Keys that mean different things in different tools, or more than yes and no.
const UNCLEAR: [&str; 4] = ["mask", "train_detail", "loss_weight", "loss_scale"];

/// Whether a key of a message decides whether the message is learned.
pub fn is_about_learning(key: &str) -> bool {
    LEARNED.contains(&key) || key == MASKED || UNCLEAR.contains(&key)
}

/// Whether the assistant's message is learned; `None` if it has no such key.
///
/// # Errors
/// The key, and what is wrong with its value.
pub fn learned(message: &Message) -> Result<Option<bool>, (String, String)> {
    let mut decided: Option<(&str, bool)> = None;
    for key in LEARNED.iter().chain([&MASKED]) {
        let Some(value) = message.get(*key).filter(|value| !value.is_null()) else { continue };
        let is_learned = match value {
            Value::Bool(truth) => *truth,
            Value::Number(number) if number.as_f64() == Some(1.0) => true,
            Value::Number(number) if number.as_f64() == Some(0.0) => false,
            other => {
                let what = format!(
                    "expected 0 (not learned) or 1 (learned), found {other}: fractional weights are not supported"
                );
                return Err(((*key).to_owned(), what));
            }
        } != (*key == MASKED);
        if is_learned && *key != MASKED && role(message) != ASSISTANT {
            let what =
                format!("only messages of the role \"{ASSISTANT}\" are learned, and this one is \"{}\"", role(message));
            return Err(((*key).to_owned(), what));
        }
        match decided {
            Some((other, before)) if before != is_learned => {
                return Err(((*key).to_owned(), format!("contradicts `{other}` of the same message")));
            }
            _ => decided = Some((key, is_learned)),
        }
    }
    if let Some(key) = UNCLEAR.iter().find(|key| message.get(**key).is_some_and(|value| !value.is_null())) {
        let what = "not supported, since its meaning differs between tools; `weight`: 0 or 1 decides whether a message is learned";
        return Err(((*key).to_owned(), what.to_owned()));
    }
    Ok(decided.map(|(_, is_learned)| is_learned))
}
