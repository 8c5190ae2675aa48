//! Declares a TOML table as written, with its keys.

use super::{form::Form, key::Key};

/// A table made by [`table!`].
pub trait Table {
    /// Its keys in the order of the reference, parents before children.
    const KEYS: &'static [Key];
}

/// A table that may be absent has the same keys.
impl<T: Table> Table for Option<T> {
    const KEYS: &'static [Key] = T::KEYS;
}

/// A list of tables has the same keys.
impl<T: Table> Table for Vec<T> {
    const KEYS: &'static [Key] = T::KEYS;
}

/// A default that is written as a literal: `1`, `0.5`, `"cpu"`.
pub trait Literal<T> {
    /// Its value.
    fn value(self) -> T;
}

impl<T> Literal<T> for T {
    fn value(self) -> T {
        self
    }
}

impl Literal<String> for &'static str {
    fn value(self) -> String {
        self.to_owned()
    }
}

/// Returns the number of all keys.
pub const fn count(parts: &[&[Key]]) -> usize {
    let (mut count, mut part) = (0, 0);
    while part < parts.len() {
        count += parts[part].len();
        part += 1;
    }
    count
}

/// Returns all keys in one array of their [`count`].
pub const fn joined<const COUNT: usize>(parts: &[&[Key]]) -> [Key; COUNT] {
    const NONE: Key = Key { path: "", form: Form::Bool, default: "", example: "", meaning: "", may_change: false };
    let mut all = [NONE; COUNT];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut index = 0;
        while index < parts[part].len() {
            all[at] = parts[part][index];
            (at, index) = (at + 1, index + 1);
        }
        part += 1;
    }
    all
}

/// Declares a TOML table: a struct of its values as written, all of them optional, and its [`Table::KEYS`].
///
/// ```text
/// table! {
///     /// the meaning of the table
///     pub struct Written at "rollout": Form::Table, example { prompts = 64 } {
///         /// the meaning of the key
///         prompts: usize, Form::ROWS, example 64;
///         /// with a default: `written.samples()` returns the value or this default
///         samples: usize = 1, Form::Int(1, 65536), example 4;
///         /// with a default in words, because it depends on other keys
///         clip: f64, Form::POSITIVE, default "none", example 5.0, may_change;
///         /// with a name in the file that is a word of Rust
///         pattern as "match": String, Form::Text, example "*embed*";
///         groups in Vec<Group>;
///     }
/// }
/// ```
///
/// - A doc comment is the meaning that `--help-keys` prints, on one line.
/// - `at ""` is the root. Without form and example the table has no row of its own: its keys belong to a table that is declared
///   elsewhere, or to the root.
/// - `name in Type` is a table below this one, declared by its own [`table!`].
/// - An example is a TOML value.
/// - `may_change`, after the example of a key or a table: its value may change when a run is resumed.
macro_rules! table {
    ($(#[doc = $about:literal])* $vis:vis struct $Name:ident at $path:tt
        $(: $own:expr, $(default $own_default:literal,)? example $own_example:tt $(, $own_mark:ident)?)? {
        $($(#[doc = $meaning:literal])* $field:ident $(as $name:literal)?
            $(: $ty:ty $(= $value:literal)?, $form:expr, $(default $default:literal,)? example $example:tt $(, $mark:ident)?)?
            $(in $table:ty)?;)*
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        // A table below this one is explained where it is declared. Brackets in a meaning are not links.
        #[allow(missing_docs, rustdoc::broken_intra_doc_links)]
        $vis struct $Name {
            $($(#[doc = $meaning])* $(#[serde(rename = $name)])? pub $field: $(Option<$ty>)? $($table)?,)*
        }

        #[allow(rustdoc::broken_intra_doc_links)]
        impl $Name {
            $($($(
                /// The value, or its default.
                pub(crate) fn $field(&self) -> $ty {
                    self.$field.clone().unwrap_or_else(|| $crate::keys::Literal::value($value))
                }
            )?)?)*
        }

        impl $crate::keys::Table for $Name {
            const KEYS: &'static [$crate::keys::Key] = {
                #[allow(dead_code)]
                const ABOUT: &str = concat!($($about),*).trim_ascii();
                const PARTS: &[&[$crate::keys::Key]] = &[
                    $(&[$crate::keys::Key {
                        path: $path,
                        form: $own,
                        default: concat!($($own_default)?),
                        example: stringify!($own_example),
                        meaning: ABOUT,
                        may_change: $crate::keys::table!(@mark $($own_mark)?),
                    }],)?
                    $({
                        #[allow(dead_code)]
                        const PATH: &str = $crate::keys::table!(@path $path $field $($name)?);
                        #[allow(dead_code)]
                        const MEANING: &str = concat!($($meaning),*).trim_ascii();
                        $(const KEYS: &[$crate::keys::Key] = &[$crate::keys::Key {
                            path: PATH,
                            form: $form,
                            default: $crate::keys::table!(@default [$($value)?] [$($default)?]),
                            example: stringify!($example),
                            meaning: MEANING,
                            may_change: $crate::keys::table!(@mark $($mark)?),
                        }];)?
                        $(const KEYS: &[$crate::keys::Key] = <$table as $crate::keys::Table>::KEYS;)?
                        KEYS
                    },)*
                ];
                const ALL: [$crate::keys::Key; $crate::keys::count(PARTS)] = $crate::keys::joined(PARTS);
                &ALL
            };
        }
    };
    (@path "" $field:ident) => { stringify!($field) };
    (@path $table:literal $field:ident) => { concat!($table, ".", stringify!($field)) };
    (@path $table:literal $field:ident $name:literal) => { concat!($table, ".", $name) };
    (@default [] []) => { "" };
    (@default [$value:literal] []) => { stringify!($value) };
    (@default [] [$words:literal]) => { $words };
    (@mark) => { false };
    (@mark may_change) => { true };
}

pub(crate) use table;

#[cfg(test)]
mod tests {
    use super::*;

    table! {
        /// The root.
        struct Root at "" {
            /// a number
            count: u64 = 3, Form::ANY_INT, example 4, may_change;
            inner in Option<Inner>;
            /// a word,
            /// explained at length
            word: String = "a", Form::Text, example "b";
        }
    }

    table! {
        /// inside
        struct Inner at "inner": Form::Table, default "none", example { match = "x" } {
            /// a pattern
            pattern as "match": String, Form::Text, default "that of the root", example "x";
        }
    }

    /// Catches keys of an inner table out of their place, a lost name, a meaning that keeps its margin, and a mark at the wrong key.
    #[test]
    fn every_key_has_its_row() {
        let rows: Vec<_> =
            Root::KEYS.iter().map(|key| (key.path, key.default, key.example, key.meaning, key.may_change)).collect();
        assert_eq!(
            rows,
            [
                ("count", "3", "4", "a number", true),
                ("inner", "none", "{ match = \"x\" }", "inside", false),
                ("inner.match", "that of the root", "\"x\"", "a pattern", false),
                ("word", "\"a\"", "\"b\"", "a word, explained at length", false),
            ]
        );
    }

    /// Catches a value that is ignored for its default, a field that is read by its name in Rust, and an unknown key that passes.
    #[test]
    fn a_written_value_replaces_the_default() {
        let read = |text: &str| serde_json::from_str::<Root>(text);
        let given = read(r#"{"count": 5, "inner": {"match": "y"}}"#).unwrap();
        assert_eq!((given.count(), given.word()), (5, "a".to_owned()));
        assert_eq!(given.inner.unwrap().pattern.as_deref(), Some("y"));
        assert_eq!(read("{}").unwrap().count(), 3);
        assert!(read(r#"{"pattern": "y"}"#).is_err());
    }
}
