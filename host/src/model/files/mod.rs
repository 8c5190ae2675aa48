//! A model's tensors in files.
//!
//! | file | job |
//! |---|---|
//! | [`tensor_file`] | one file of tensors: safetensors, or GGUF |
//! | `gguf_file` | the tensors of a GGUF file as those of a Hugging Face file |
//! | [`weights`] | the tensors of a Hugging Face folder, checked and loaded |
//! | [`hash`](mod@hash) | the sha256 of weights |
//! | `order` | the order of values in files |
//! | `refusal` | the refusal of tensors that do not fit |
//! | [`save`](mod@save) | a model written to a folder |

mod gguf_file;
pub mod hash;
mod order;
pub(super) mod refusal;
pub mod save;
pub mod tensor_file;
pub mod weights;
