//! The types of tensors in GGUF files: number, name, elements and bytes of a block (ggml.h, ggml-common.h of llama.cpp).

/// A type of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType {
    /// Its number in files.
    pub number: u32,
    /// Its name in llama.cpp.
    pub name: &'static str,
    /// Elements of a block.
    pub elements: u64,
    /// Bytes of a block.
    pub bytes: u64,
}

const fn kind(number: u32, name: &'static str, elements: u64, bytes: u64) -> TensorType {
    TensorType { number, name, elements, bytes }
}

/// f32.
pub const F32: TensorType = kind(0, "F32", 1, 4);
/// f16.
pub const F16: TensorType = kind(1, "F16", 1, 2);
/// bf16.
pub const BF16: TensorType = kind(30, "BF16", 1, 2);
/// f64.
pub const F64: TensorType = kind(28, "F64", 1, 8);

/// The types that are read.
pub const TYPES: &[TensorType] = &[
    F32,
    F16,
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    F64,
    BF16,
];

/// Types that are known and not read.
const OTHERS: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// Returns the type of a number.
///
/// # Errors
/// The name of a type that is not read, or its number if it is unknown.
pub fn find(number: u32) -> Result<TensorType, String> {
    let known = TYPES.iter().copied().find(|one| one.number == number);
    known.ok_or_else(|| match OTHERS.iter().find(|(other, _)| *other == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("number {number}"),
    })
}

/// The names of the types that are read.
pub fn names() -> String {
    TYPES.iter().map(|one| one.name).collect::<Vec<_>>().join(", ")
}
