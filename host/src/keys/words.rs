//! Declares a value that is one of several words.

/// Declares an enum whose values experiments write as words. `WORDS` lists them in the order of messages.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $Name:ident {
        $($(#[$note:meta])* $Word:ident = $word:literal),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        $vis enum $Name {
            $($(#[$note])* #[serde(rename = $word)] $Word,)*
        }

        impl $Name {
            /// Every word.
            pub const WORDS: &'static [&'static str] = &[$($word),*];
        }
    };
}

pub(crate) use words;
