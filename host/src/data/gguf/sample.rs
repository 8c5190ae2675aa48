//! A small GGUF file, for tests: a writer, and a model of each architecture.

use super::quants::{F32, TensorType};

/// A value to write.
pub enum Put<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(&'a [&'a str]),
    Ints(&'a [i32]),
    Floats(&'a [f32]),
}

/// A file to write.
#[derive(Default)]
pub struct Sample {
    keys: Vec<u8>,
    key_count: u64,
    table: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Sample {
    pub fn put(mut self, key: &str, value: Put<'_>) -> Self {
        let bytes = &mut self.keys;
        text(bytes, key);
        let list = |bytes: &mut Vec<u8>, kind: u32, count: usize| {
            bytes.extend(9_u32.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend((count as u64).to_le_bytes());
        };
        match value {
            Put::U32(value) => bytes.extend([4_u32.to_le_bytes(), value.to_le_bytes()].concat()),
            Put::F32(value) => bytes.extend([6_u32.to_le_bytes(), value.to_le_bytes()].concat()),
            Put::Bool(value) => {
                bytes.extend(7_u32.to_le_bytes());
                bytes.push(u8::from(value));
            }
            Put::Text(value) => {
                bytes.extend(8_u32.to_le_bytes());
                text(bytes, value);
            }
            Put::Texts(values) => {
                list(bytes, 8, values.len());
                values.iter().for_each(|value| text(bytes, value));
            }
            Put::Ints(values) => {
                list(bytes, 5, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
            Put::Floats(values) => {
                list(bytes, 6, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
        }
        self.key_count += 1;
        self
    }

    /// Adds a tensor; `shape` has rows before columns.
    pub fn tensor(mut self, name: &str, shape: &[u64], kind: TensorType, bytes: &[u8]) -> Self {
        text(&mut self.table, name);
        self.table.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| self.table.extend(size.to_le_bytes()));
        self.table.extend(kind.number.to_le_bytes());
        self.table.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(bytes);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.tensor_count += 1;
        self
    }

    /// Adds an F32 tensor whose element `i` is `i`.
    pub fn counted(self, name: &str, shape: &[u64]) -> Self {
        let count = shape.iter().product::<u64>();
        let bytes: Vec<u8> = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        self.tensor(name, shape, F32, &bytes)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.key_count.to_le_bytes());
        bytes.extend([&self.keys[..], &self.table[..]].concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(&self.data);
        bytes
    }
}

/// The tokens of [`llama`]: some bytes of the byte-level alphabet, and special ones.
pub const TOKENS: &[&str] = &["<|end|>", "<|turn|>", "a", "b", "c", "Ġ", "ab", "Ġab", "1", "[PAD9]"];

/// A Llama of one layer: width 4, two heads of width 4 (wider than the model), one key-value head, 10 tokens.
pub fn llama() -> Sample {
    let sizes = [
        ("block_count", 1),
        ("context_length", 16),
        ("embedding_length", 4),
        ("feed_forward_length", 6),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 4),
        ("attention.value_length", 4),
        ("rope.dimension_count", 4),
    ];
    let mut file = Sample::default().put("general.architecture", Put::Text("llama"));
    for (key, value) in sizes {
        file = file.put(&format!("llama.{key}"), Put::U32(value));
    }
    file.put("llama.attention.layer_norm_rms_epsilon", Put::F32(1e-5))
        .put("llama.rope.freq_base", Put::F32(500_000.0))
        .put("tokenizer.ggml.model", Put::Text("gpt2"))
        .put("tokenizer.ggml.pre", Put::Text("smollm"))
        .put("tokenizer.ggml.tokens", Put::Texts(TOKENS))
        .put("tokenizer.ggml.token_type", Put::Ints(&[3, 3, 1, 1, 1, 1, 1, 1, 1, 5]))
        .put("tokenizer.ggml.merges", Put::Texts(&["a b", "Ġ ab"]))
        .put("tokenizer.ggml.bos_token_id", Put::U32(1))
        .put("tokenizer.ggml.eos_token_id", Put::U32(0))
        .put("tokenizer.ggml.eot_token_id", Put::U32(1))
        .put("tokenizer.ggml.add_bos_token", Put::Bool(true))
        .put("tokenizer.chat_template", Put::Text("{{ messages[0]['content'] }}"))
        .counted("token_embd.weight", &[10, 4])
        .counted("output_norm.weight", &[4])
        .counted("blk.0.attn_norm.weight", &[4])
        .counted("blk.0.attn_q.weight", &[8, 4])
        .counted("blk.0.attn_k.weight", &[4, 4])
        .counted("blk.0.attn_v.weight", &[4, 4])
        .counted("blk.0.attn_output.weight", &[4, 8])
        .counted("blk.0.ffn_norm.weight", &[4])
        .counted("blk.0.ffn_gate.weight", &[6, 4])
        .counted("blk.0.ffn_up.weight", &[6, 4])
        .counted("blk.0.ffn_down.weight", &[4, 6])
}
