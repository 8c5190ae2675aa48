//! Files that a user names, as data and models read them.
//!
//! | job | file |
//! |---|---|
//! | extract the text of a file, or name its format | [`mod@format`] |
//! | recognize a file or name that is of the wrong kind | [`foreign`] |
//! | recognize files that describe a data set | `described` |
//! | the small files of a model's folder, recorded for the receipt | [`inputs`] |
//! | turn panics of libraries on untrusted files into errors | `guard` |

pub(super) mod described;
pub mod foreign;
pub mod format;
pub(crate) mod guard;
pub mod inputs;
