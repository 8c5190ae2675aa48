//! Rows: prompts with their answers and other columns of a data set, from files to token ids.
//!
//! | step | file |
//! |---|---|
//! | which parts the rows of each kind have | [`kind`] |
//! | a row, its messages, the names of its columns | [`row`], [`message`], [`columns`] |
//! | read files into parts and columns | [`read`] |
//! | keep them, in memory or on disk, with counts of what their columns hold | [`store`] |
//! | split off held-out rows, never with a prompt on both sides | [`split`] |
//! | write a row as text, with its supervised spans | [`write`](mod@write) |
//! | tokenise, truncate, drop rows with nothing left to learn, count | [`encode`], [`truncation`], [`counts`] |
//! | hold the tokens in rows, and the text that rewards read | [`set`], [`text`] |
//! | report the columns that nothing reads | [`unread`] |

pub mod columns;
pub mod counts;
pub mod encode;
pub mod kind;
pub mod message;
pub mod read;
pub mod row;
pub mod set;
pub mod split;
pub mod store;
pub mod text;
pub mod truncation;
pub mod unread;
pub mod write;

pub use super::place::Place;
pub use columns::Columns;
pub use counts::RowCounts;
pub use kind::{Part, RowKind};
pub use message::{ASSISTANT, Message, role};
pub use read::formats::Format;
pub use read::jsonl::{RowOptions, RowPart};
pub use read::segments::SEPARATOR;
pub use read::{integers, jsonl};
pub use row::{Content, Row};
pub use set::RowSet;
pub use store::Rows;
pub use store::corpus::RowCorpus;
pub use store::every::Every;
pub use text::{RowText, number};
pub use truncation::{Filter, Truncation};
pub use write::template::ChatTemplate;
pub use write::{layout, template};
