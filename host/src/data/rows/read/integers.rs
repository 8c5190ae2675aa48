//! Keeps whole numbers that do not fit into 64 bits exact for chat templates.

use std::borrow::Cow;

use crate::data::jinja::INTEGER;
use crate::data::rows::columns::Columns;
use crate::data::rows::kind::Part;
use crate::data::rows::write::template::KWARGS;

/// Columns that chat templates read, besides the parts.
const READ: [&str; 5] = ["tools", "documents", KWARGS, "conversations", "conversation"];

/// The text of a row as it was before [`keep`]: whole numbers as they were written.
pub fn written(row: &str) -> Cow<'_, str> {
    let opening = format!("{{\"{INTEGER}\":\"");
    if !row.contains(&opening) {
        return Cow::Borrowed(row);
    }
    let mut pieces = row.split(opening.as_str());
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        // Within a string the quotes would be escaped, so this must be an object that `keep` inserted.
        let (digits, rest) = piece.split_once("\"}").unwrap_or((piece, ""));
        out.push_str(digits);
        out.push_str(rest);
    }
    Cow::Owned(out)
}

/// Returns the text of a row, with each whole number beyond 64 bits in messages, tools, documents and template
/// variables replaced by an object that holds its digits under the key [`INTEGER`]. All other text is unchanged.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches digits that are rounded, lost or left in their object between reading and writing a file.
    #[test]
    fn kept_integers_are_written_unchanged() {
        let row = r#"{"prompt":[{"role":"user","content":"{\"a\":1}","id":123456789012345678901234567890}],"tools":[{"n":[-99999999999999999999,1.5]}],"n":1}"#;
        let kept = keep(row, &Columns::new());
        assert_ne!(kept, row);
        let value: serde_json::Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(written(&value.to_string()), row);
        assert!(matches!(written("{\"a\":1}"), Cow::Borrowed(_)));
    }
}
