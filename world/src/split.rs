//! Which texts are held out.

use telos_random::mix;

/// One text in `HELD_OUT_SHARE` is held out.
const HELD_OUT_SHARE: u64 = 10;

/// The side of the split. A tenth of all prompts and sentences is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// Texts to train on.
    Train,
    /// Texts that are never trained on.
    HeldOut,
}

impl Split {
    /// The side of `text`: decided by the hash of its bytes, so it is the same for every seed and every kind of data.
    pub fn of(text: &str) -> Split {
        if hash_text(text).is_multiple_of(HELD_OUT_SHARE) { Split::HeldOut } else { Split::Train }
    }
}

/// A stable 64-bit hash of a text's bytes: FNV-1a, then SplitMix64's output function. Not for security. A change here moves texts
/// from one side of the split to the other.
fn hash_text(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    mix(fnv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_text_matches_recorded_bits() {
        // Fixed numbers. Catches another hash, which moves texts from one side of the split to the other.
        assert_eq!(hash_text(""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(hash_text("add: 2 + 3\n"), 0xaba8_d5d6_bee8_9f4e);
    }
}
