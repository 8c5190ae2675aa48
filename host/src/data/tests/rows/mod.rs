//! Rows: from the shapes of other tools to tokens, and which tokens are supervised.

mod answers;
mod chats;
pub(super) mod encoding;
mod left_out;
mod marks;
mod pairs;
mod prompts;
mod published;
mod shapes;
mod sources;
mod splitting;
mod templates;
