//! Makes text of unknown origin safe to print: nothing that comes out of here can make a terminal do anything
//! but show it, and none of it can pretend to be another line of the output.
//!
//! Escaped are control characters (C0, DEL, C1), line and paragraph separators and the characters that change
//! the direction of text. A backslash stays as it is: this is for people, the JSON output is exact.

use std::fmt::{self, Display, Write};

/// The most characters of one text that are printed; the rest is counted.
pub const TEXT_MAX: usize = 1000;

/// Whether a terminal or a reader's eye could be misled by this character.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// This text on one line, at most [`TEXT_MAX`] characters of it.
#[must_use]
pub fn text(text: &str) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let mut chars = text.chars();
        for c in chars.by_ref().take(TEXT_MAX) {
            write_char(f, c)?;
        }
        match chars.count() {
            0 => Ok(()),
            more => write!(f, "… ({more} more)"),
        }
    })
}

/// Bytes on one line as [`text`] does it; bytes that are not UTF-8 are shown as `\xNN`.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string can't fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    text(&out).to_string()
}

/// JSON text in which everything unsafe is written as `\uNNNN`. Outside of strings JSON has no such characters.
#[must_use]
pub fn json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn write_char(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if is_unsafe(c) && c.is_ascii() => write!(f, "\\x{:02x}", c as u32),
        c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", c as u32),
        c => f.write_char(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_a_terminal_would_act_on_comes_through(raw in ".*", any: Vec<u8>) {
            prop_assert!(!text(&raw).to_string().chars().any(is_unsafe));
            prop_assert!(!bytes(&any).chars().any(is_unsafe));
        }

        #[test]
        fn escaped_json_means_the_same(raw in ".*") {
            let plain = serde_json::to_string(&raw).expect("strings serialize");
            let escaped = json(&plain);
            prop_assert!(!escaped.chars().any(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).expect("still JSON"), raw);
        }
    }

    #[test]
    fn readable_text_is_left_alone_and_the_rest_is_spelled_out() {
        assert_eq!(text("grüße, \\o/ 日本").to_string(), "grüße, \\o/ 日本");
        assert_eq!(text("a\x1b[31m\u{9b}\u{202e}\r\n").to_string(), "a\\x1b[31m\\u{9b}\\u{202e}\\r\\n");
        assert_eq!(bytes(b"a\xffb\x07"), "a\\xffb\\x07");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        assert!(text(&"x".repeat(TEXT_MAX + 7)).to_string().ends_with("x… (7 more)"));
    }
}
