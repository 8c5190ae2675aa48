//! Files that a user names, as data and models read them.
//!
//! | job | file |
//! |---|---|
//! | extract the text of a file, or name its format | [`mod@format`] |
//! | recognize a file or name that is of the wrong kind | [`foreign`] |
//! | the small files of a model's folder, recorded for the receipt | [`inputs`] |
//! | turn panics of libraries on untrusted files into errors | `guard` |

pub mod foreign;
pub mod format;
pub(crate) mod guard;
pub mod inputs;
