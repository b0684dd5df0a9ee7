//! Words of a shell: where one ends, what lies inside its quotes, and whether it is only a reference to something.

use std::ops::Range;

/// The most bytes that a reference such as `$(…)` may have; a longer one is taken for a secret.
const REFERENCE_MAX: usize = 256;

/// A word, as [`word`] reads it.
pub(super) struct Word {
    /// What it says: without its quotes, if these are around all of it.
    pub(super) inside: Range<usize>,
    /// Where it ends, quotes included.
    pub(super) end: usize,
    /// The quote around all of it.
    quote: Option<u8>,
}

impl Word {
    /// Whether it says nothing secret: it is empty, refers to something, stands for something, or is masked already.
    pub(super) fn is_plain(&self, text: &str) -> bool {
        is_plain(&text[self.inside.clone()], self.quote)
    }
}

/// Whether this says nothing secret, inside these quotes.
pub(super) fn is_plain(text: &str, quote: Option<u8>) -> bool {
    text.is_empty()
        || text == super::MASK
        || (text.starts_with('<') && text.ends_with('>'))
        || text.starts_with("{{")
        || text.starts_with("${{")
        || text.bytes().all(|byte| byte == b'*')
        || (text.len() > 2 && text.bytes().all(|byte| matches!(byte, b'.' | b'x' | b'X')))
        || text.chars().all(|c| matches!(c, '•' | '…'))
        || (quote != Some(b'\'') && is_reference(text))
}

/// Whether nothing but references to variables and commands is in it.
fn is_reference(text: &str) -> bool {
    if text.len() > REFERENCE_MAX {
        return false;
    }
    let mut at = 0;
    while at < text.len() {
        let Some(end) = reference(text.as_bytes(), at) else { return false };
        at = end;
    }
    true
}

/// Where the reference ends that begins here.
fn reference(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(at + REFERENCE_MAX)];
    match (bytes.get(at)?, bytes.get(at + 1)) {
        (b'`', _) => Some(at + 2 + bytes[at + 1..].iter().position(|byte| *byte == b'`')?),
        (b'$', Some(b'(')) => {
            let mut depth = 0_usize;
            for (i, byte) in bytes.iter().enumerate().skip(at + 1) {
                match byte {
                    b'(' => depth += 1,
                    b')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            None
        }
        (b'$', Some(b'{')) => {
            let end = at + 2 + bytes[at + 2..].iter().position(|byte| !is_name(*byte))?;
            (end > at + 2 && bytes[end] == b'}').then_some(end + 1)
        }
        (b'$', Some(byte)) if byte.is_ascii_digit() || matches!(byte, b'@' | b'*' | b'?') => Some(at + 2),
        (b'$', Some(byte)) if is_name(*byte) => {
            let len = bytes[at + 1..].iter().position(|byte| !is_name(*byte));
            Some(len.map_or(bytes.len(), |len| at + 1 + len))
        }
        _ => None,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a word ends before this byte, where nothing quotes or escapes it.
pub(super) fn separates(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b';' | b'|' | b'&' | b'<' | b'>' | b'(' | b')' | b'`')
}

/// The word that begins at `at`. `outer` is the quote that is open there: it ends the word, too.
pub(super) fn word(text: &str, at: usize, outer: Option<u8>) -> Word {
    let bytes = text.as_bytes();
    if let Some(word) = escaped_quotes(text, at) {
        return word;
    }
    let mut end = at;
    while let Some(&byte) = bytes.get(end) {
        let at_end =
            bytes.get(end + 1).is_none_or(|next| separates(*next) || matches!(next, b',' | b'}' | b']'));
        match byte {
            b'\\' => end = next_char(text, end + 1),
            // What follows tells a quote that closes what is around from one that opens.
            b'\'' | b'"' if at_end && (end > at || outer == Some(byte)) => break,
            b'\'' | b'"' => match closing(bytes, end + 1, byte) {
                Some(close) if end == at => {
                    let closed = bytes.get(close + 1).is_none_or(|next| ends_quoted(*next));
                    if closed {
                        return Word { inside: at + 1..close, end: close + 1, quote: Some(byte) };
                    }
                    end = close + 1;
                }
                Some(close) => end = close + 1,
                None => end += 1,
            },
            b'$' if bytes.get(end + 1) == Some(&b'\'') => end = ansi_closing(bytes, end + 2),
            b'$' | b'`' => match reference(bytes, end) {
                Some(after) => end = after,
                None if byte == b'$' => end += 1,
                None => break,
            },
            // What somebody left to be filled in.
            b'<' if end == at => match text[end..].bytes().take(64).position(|byte| byte == b'>') {
                Some(len) => end += len + 1,
                None => break,
            },
            _ if separates(byte) => break,
            _ => end = next_char(text, end),
        }
    }
    Word { inside: at..end, end, quote: None }
}

/// A value between quotes that are escaped, as in JSON inside of a double-quoted word.
fn escaped_quotes(text: &str, at: usize) -> Option<Word> {
    let bytes = text.as_bytes();
    let slashes = bytes[at..].iter().take(8).position(|byte| *byte != b'\\')?;
    let quote = *bytes.get(at + slashes)?;
    if slashes == 0 || !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let from = at + slashes + 1;
    let to = from + text[from..].find(&text[at..from])?;
    Some(Word { inside: from..to, end: to + slashes + 1, quote: None })
}

/// Whether a word in quotes ends with them, if this comes behind.
fn ends_quoted(next: u8) -> bool {
    separates(next) || matches!(next, b',' | b'}' | b']' | b':' | b'"' | b'\'' | b'\\')
}

/// Where this quote closes, from `at` on.
pub(super) fn closing(bytes: &[u8], mut at: usize, quote: u8) -> Option<usize> {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            byte if byte == quote => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Behind the quote that closes `$'…'`, or where the text ends.
fn ansi_closing(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\'' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Behind the character that begins at `at`.
fn next_char(text: &str, at: usize) -> usize {
    at + text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
}

/// Behind blanks, and behind line ends that are escaped.
pub(super) fn skip_blanks(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    loop {
        match bytes.get(at) {
            Some(b' ' | b'\t') => at += 1,
            Some(b'\\') if bytes.get(at + 1) == Some(&b'\n') => at += 2,
            _ => return at,
        }
    }
}

/// Follows which quotes are open, and where commands end.
#[derive(Default)]
pub(super) struct Quotes {
    at: usize,
    open: Option<u8>,
    /// Where a command ended last: outside of quotes, and inside of either.
    ends: [Option<usize>; 3],
}

impl Quotes {
    /// Goes on to `to`; what lies before has been seen.
    pub(super) fn advance(&mut self, text: &str, to: usize) {
        let bytes = text.as_bytes();
        while self.at < to {
            let at = self.at;
            match (bytes[at], self.open) {
                (b'\\', open) if open != Some(b'\'') => self.at += 1,
                (byte @ (b'\'' | b'"'), None) if !is_apostrophe(bytes, at) => self.open = Some(byte),
                (byte, Some(open)) if byte == open => self.open = None,
                (b';' | b'|' | b'&' | b'\n', _) => self.ends[self.level()] = Some(at),
                _ => {}
            }
            self.at += 1;
        }
    }

    /// The quote that is open.
    pub(super) fn open(&self) -> Option<u8> {
        self.open
    }

    /// Where a command ended last, as seen from between the quotes that are open.
    pub(super) fn last_end(&self) -> Option<usize> {
        self.ends[self.level()]
    }

    fn level(&self) -> usize {
        match self.open {
            None => 0,
            Some(b'\'') => 1,
            Some(_) => 2,
        }
    }
}

/// As in `don't`: prose stands on terminals, too.
fn is_apostrophe(bytes: &[u8], at: usize) -> bool {
    let letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphabetic);
    bytes[at] == b'\'' && at > 0 && letter(bytes.get(at - 1)) && letter(bytes.get(at + 1))
}
