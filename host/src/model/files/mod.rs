//! A model's tensors in files.
//!
//! | file | job |
//! |---|---|
//! | [`tensor_file`] | one safetensors file |
//! | [`weights`] | the tensors of a Hugging Face folder, checked and loaded |
//! | `order` | the order of values in files |
//! | `save` | a model written to a folder |

mod order;
pub(in crate::model) mod save;
pub mod tensor_file;
pub mod weights;
