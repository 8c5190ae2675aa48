//! Forms of values: what the form check accepts, and how messages name it.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

/// The form of a value.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// true or false.
    Bool,
    /// An integer in a closed range.
    Int(i64, i64),
    /// A finite number in a range; integers are numbers too.
    Float(Bound<f64>, Bound<f64>),
    /// A string, not empty.
    Text,
    /// One of several words.
    Word(&'static [&'static str]),
    /// A string or a list of strings; at least one, and none empty.
    Texts,
    /// A list of words.
    Words(&'static [&'static str]),
    /// A number of steps (integer from 0) or a fraction of all steps (number above 0 and below 1).
    Span,
    /// Two numbers from 0 to below 1.
    Betas,
    /// A list of integers in a closed range, at least one.
    Ints(i64, i64),
    /// A list of `[step, length]`, at least one.
    Lengths,
    /// A table with the keys listed below it.
    Table,
    /// Like `Table`, or one of several words, which means `{ kind = word }`.
    WordOrTable(&'static [&'static str]),
    /// A list of tables.
    Tables,
    /// A table with the keys listed below it and a plugin's options.
    Plugin,
    /// One such table, or a list of them.
    Plugins,
}

/// No limit that matters: messages do not name it.
const MANY: i64 = 1 << 40;

impl Form {
    /// An integer from 0.
    pub const ANY_INT: Form = Form::Int(0, MANY);
    /// An integer from 1.
    pub const POSITIVE_INT: Form = Form::Int(1, MANY);
    /// Positions of a batch: their offsets are passed to plugins as 32-bit integers.
    pub const POSITIONS: Form = Form::Int(1, i32::MAX as i64);
    /// Rows of a batch.
    pub const ROWS: Form = Form::Int(1, 1 << 24);
    /// A number above 0.
    pub const POSITIVE: Form = Form::Float(Excluded(0.0), Unbounded);
    /// A number from 0.
    pub const FROM_ZERO: Form = Form::Float(Included(0.0), Unbounded);

    /// What is expected, in words.
    pub fn expected(self) -> String {
        match self {
            Form::Bool => "true or false".to_owned(),
            Form::Int(min, max) => int_range(min, max),
            Form::Float(min, max) => format!("a number{}", float_range(min, max)),
            Form::Text => "a string (not empty)".to_owned(),
            Form::Word(words) => format!("one of {}", quoted(words)),
            Form::Texts => "a string or a list of strings".to_owned(),
            Form::Words(words) => format!("a list of {}", quoted(words)),
            Form::Span => {
                "a number of steps (integer) or a fraction of the run (number above 0 and below 1)".to_owned()
            }
            Form::Betas => "two numbers, each at least 0 and below 1".to_owned(),
            Form::Ints(min, max) => format!("a list of integers, each {}", &int_range(min, max)["an integer ".len()..]),
            Form::Lengths => "a list of [step, tokens]".to_owned(),
            Form::Table | Form::Plugin => "a table".to_owned(),
            Form::WordOrTable(words) => format!("one of {}, or a table", quoted(words)),
            Form::Tables => "a list of tables".to_owned(),
            Form::Plugins => "a table or a list of tables".to_owned(),
        }
    }
}

fn int_range(min: i64, max: i64) -> String {
    match (min, max) {
        (min, MANY) => format!("an integer from {min}"),
        (min, max) => format!("an integer from {min} to {max}"),
    }
}

/// ` above 0`, ` of at least 0 and below 1` and so on; empty without bounds.
pub fn float_range(min: Bound<f64>, max: Bound<f64>) -> String {
    let low = match min {
        Included(low) => Some(format!("of at least {low}")),
        Excluded(low) => Some(format!("above {low}")),
        Unbounded => None,
    };
    let high = match max {
        Included(high) => Some(format!("at most {high}")),
        Excluded(high) => Some(format!("below {high}")),
        Unbounded => None,
    };
    match (low, high) {
        (None, None) => String::new(),
        (Some(one), None) | (None, Some(one)) => format!(" {one}"),
        (Some(low), Some(high)) => format!(" {low} and {high}"),
    }
}

/// `"a", "b" or "c"`.
pub fn quoted(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("\"{one}\""),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{} or \"{last}\"", most.join(", "))
        }
    }
}
