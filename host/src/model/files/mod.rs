//! A model's tensors in files.
//!
//! | file | job |
//! |---|---|
//! | [`tensor_file`] | one safetensors file |
//! | [`weights`] | the tensors of a Hugging Face folder, checked and loaded |
//! | `save` | a model written to a folder |

pub(in crate::model) mod save;
pub mod tensor_file;
pub mod weights;
