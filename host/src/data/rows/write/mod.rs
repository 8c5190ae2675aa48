//! Rows as text.
//!
//! | step | file |
//! |---|---|
//! | write a row as one text, with the stretches that are supervised | [`layout`], whose result is [`laid`] |
//! | render a conversation by a chat template, and find the answers in the text | [`template`], [`places`] |
//! | which messages are learned | [`learned`] |
//! | see to contents in parts, unusual roles and answers that were cut off | [`parts`] |
//! | name the keys of messages that a template leaves out | [`unwritten`] |

pub mod laid;
pub mod layout;
pub mod learned;
pub mod parts;
pub mod places;
pub mod template;
pub mod unwritten;
