//! Files that a user names, as data and models read them.
//!
//! | job | file |
//! |---|---|
//! | take the text out of a file, or say what the file is | [`mod@format`] |
//! | what a file or name is where something else is wanted | [`foreign`] |
//! | the small files of a model's folder, noted for the receipt | [`inputs`] |
//! | panics of libraries on files of other people become errors | `guard` |

pub mod foreign;
pub mod format;
pub(crate) mod guard;
pub mod inputs;
