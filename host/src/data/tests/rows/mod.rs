//! Rows: from the shapes of other tools to tokens, and what is supervised of them.

mod answers;
mod chats;
pub(super) mod encoding;
mod left_out;
mod marks;
mod pairs;
mod prompts;
mod shapes;
mod splitting;
mod templates;
