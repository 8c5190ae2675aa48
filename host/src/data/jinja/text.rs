//! Text as in Python: which characters are whitespace, which are printable, how a text is quoted.

/// Whether Python counts it as whitespace.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// Whether Python prints a character unescaped.
pub fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    // After another character, the standard library leaves combining characters unescaped, as Python does.
    let private = matches!(u32::from(character), 0xE000..=0xF8FF | 0xF0000.. );
    let shown = format!("a{character}").escape_debug().count() == 2;
    shown && !private && !is_space(character)
}

/// `repr(text)`.
pub fn write_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            character if character == quote => out.extend(['\\', quote]),
            character if is_printable(character) => out.push(character),
            character => out.push_str(&match u32::from(character) {
                code @ ..=0xFF => format!("\\x{code:02x}"),
                code @ ..=0xFFFF => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}
