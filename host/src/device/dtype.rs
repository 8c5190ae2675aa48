//! The dtype of computation.

use crate::keys::words;

words! {
    /// A compute type.
    #[derive(Default)]
    pub enum Dtype {
        /// 32-bit floats.
        #[default]
        F32 = "f32",
        /// bfloat16 with f32 master weights.
        Bf16 = "bf16",
        /// 64-bit floats.
        F64 = "f64",
    }
}
