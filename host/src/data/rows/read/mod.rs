//! Reads rows from files.
//!
//! | step | file |
//! |---|---|
//! | read files of any format, some rows at a time | [`records`] |
//! | read JSON into values, with file and line, strictly | [`items`], [`json`], with [`integers`] for large numbers |
//! | one or several sources of them, with their columns' names and weights | [`jsonl`] |
//! | turn them into parts and columns | [`row`], with [`messages`], [`pair`] for the prompt of two answers, [`segments`] for answers that are lists of texts, [`formats`] of published data sets, [`shapes`] of other tools |
//! | refuse a row | `refusal` |

pub mod formats;
pub mod integers;
pub mod items;
pub mod json;
pub mod jsonl;
pub mod messages;
pub mod pair;
pub mod records;
pub(in crate::data::rows) mod refusal;
pub mod row;
pub mod segments;
pub mod shapes;
