//! Writes rows as text.
//!
//! | step | file |
//! |---|---|
//! | write a row as one text, with the supervised spans | [`layout`], whose result is [`laid`] |
//! | render a conversation by a chat template, and find the answers in the text | [`template`], [`places`] |
//! | decide which messages are learned | [`learned`] |
//! | handle contents in parts, unusual roles and truncated answers | [`parts`] |
//! | write the prompt that takes the place of a row's own | [`other_prompt`] |
//! | find the segments of an answer | [`segments`] |
//! | name the keys of messages that a template leaves out | [`unwritten`] |

pub mod laid;
pub mod layout;
pub mod learned;
pub(in crate::data::rows) mod other_prompt;
pub mod parts;
pub mod places;
pub mod segments;
pub mod template;
pub mod unwritten;
