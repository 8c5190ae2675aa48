//! The options of a session, parsed, and the environment variables for tests and measurements.

use plugin_api::{Code, Error, Result};

/// The parsed options of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) tf32: bool,
    pub(crate) deterministic: bool,
    /// Whether the plugin's own kernels are used where there is one.
    pub(crate) fused: bool,
    pub(crate) attention: AttentionPath,
}

/// Which code computes attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttentionPath {
    /// The fastest that supports the call.
    Fastest,
    /// Plain products over padded batches of sequences, for every call.
    Batched,
    /// Plain products over one sequence at a time, for every call.
    Blocks,
}

impl AttentionPath {
    /// The variable that forces a path, so that tests can compare them all on the processor.
    pub(crate) const VARIABLE: &str = "TELOS_TORCH_ATTENTION";

    /// What the environment requests; [`AttentionPath::Fastest`] by default.
    ///
    /// # Errors
    /// `OPTION` naming the known values.
    pub(crate) fn from_environment() -> Result<Self> {
        let Some(value) = std::env::var_os(Self::VARIABLE) else { return Ok(AttentionPath::Fastest) };
        Self::parse(&value.to_string_lossy())
    }

    fn parse(value: &str) -> Result<Self> {
        match value {
            "" => Ok(AttentionPath::Fastest),
            "batched" => Ok(AttentionPath::Batched),
            "blocks" => Ok(AttentionPath::Blocks),
            _ => {
                let text = format!("open: {} is `{value}`, expected batched or blocks", Self::VARIABLE);
                Err(Error::new(Code::OPTION, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a misspelt value that silently measures another path.
    #[test]
    fn an_unknown_path_of_attention_is_refused() {
        assert_eq!(AttentionPath::parse("").unwrap(), AttentionPath::Fastest);
        assert_eq!(AttentionPath::parse("blocks").unwrap(), AttentionPath::Blocks);
        let refused = AttentionPath::parse("batch").unwrap_err();
        assert_eq!(refused.code, Code::OPTION);
        assert!(refused.message.contains("`batch`, expected batched or blocks"), "{refused}");
    }
}
