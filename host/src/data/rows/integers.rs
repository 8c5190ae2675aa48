//! Whole numbers that do not fit 64 bits, kept exact in what a chat template reads.

use std::borrow::Cow;

use super::template::KWARGS;
use super::{Columns, Part};
use crate::data::jinja::INTEGER;

/// Columns that reach a chat template, beside the parts.
const READ: [&str; 5] = ["tools", "documents", KWARGS, "conversations", "conversation"];

/// The text of a row, where whole numbers beyond 64 bits in messages, tools, documents and variables of templates are
/// replaced by an object with the key [`INTEGER`] and their digits. All other text stays as it is.
pub fn keep<'a>(row: &'a str, names: &Columns) -> Cow<'a, str> {
    let reaches = |key: &str| {
        let part = [Part::Messages, Part::Prompt, Part::Completion, Part::Chosen, Part::Rejected];
        READ.contains(&key)
            || part.iter().any(|part| part.name() == key)
            || names.values().any(|written| written == key)
    };
    let bytes = row.as_bytes();
    let (mut out, mut copied, mut at, mut depth) = (String::new(), 0, 0, 0usize);
    let (mut key, mut string) = ("", "");
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let start = at + 1;
                at = start;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                string = row.get(start..at).unwrap_or_default();
            }
            b':' if depth == 1 => key = string,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = bytes[at..].iter().take_while(number).count();
                let digits = &row[at..at + length];
                let whole = !digits.contains(['.', 'e', 'E']) && length > 18;
                if depth > 1
                    && whole
                    && digits.parse::<i64>().is_err()
                    && digits.parse::<u64>().is_err()
                    && reaches(key)
                {
                    out.push_str(&row[copied..at]);
                    out.push_str(&format!("{{\"{INTEGER}\":\"{digits}\"}}"));
                    copied = at + length;
                }
                at += length;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(row);
    }
    out.push_str(&row[copied..]);
    Cow::Owned(out)
}
