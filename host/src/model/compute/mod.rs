//! What a model computes, forward and backward.
//!
//! | file | job |
//! |---|---|
//! | `projection` | linear layers that share an input, with as few products as the layout allows |
//! | `linear` | their products and gradients |
//! | `rotation` | tables of rotary position embeddings |
//! | [`activations`] | batches, what is kept and what is recomputed |
//! | `head_norms` | norms of the heads of queries and keys |
//! | `decoder` | forward |
//! | `backward` | the decoder's backward pass |
//! | [`head`] | statistics per token, divergences, candidates and the most probable ids, and their backward passes |
//! | `scalar` | one number per position: scores and values, and their backward pass |
//! | [`cache`] | keys and values of earlier tokens |
//! | `generation` | prompts into the cache, then one token after another |

pub mod activations;
mod backward;
pub mod cache;
mod decoder;
mod generation;
pub mod head;
mod head_norms;
mod linear;
pub(super) mod projection;
pub(super) mod rotation;
mod scalar;
