//! Secrets that show by their own shape: tokens of known makers, private keys, passwords in addresses.

use std::ops::Range;

use super::words::is_plain;

/// How a token goes on behind its prefix.
pub(super) struct Shape {
    pub(super) prefix: &'static str,
    /// The fewest and the most bytes that come behind.
    len: (usize, usize),
    bytes: fn(u8) -> bool,
}

const UNBOUNDED: usize = usize::MAX;

/// Tokens of known makers.
pub(super) const SHAPES: &[Shape] = &[
    // IAM's identifiers, "unique ID prefixes": long-term and temporary access keys.
    Shape { prefix: "AKIA", len: (16, 16), bytes: is_upper },
    Shape { prefix: "ASIA", len: (16, 16), bytes: is_upper },
    Shape { prefix: "ghp_", len: (20, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "gho_", len: (20, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "ghu_", len: (20, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "ghs_", len: (20, UNBOUNDED), bytes: is_word },
    Shape { prefix: "ghr_", len: (20, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "github_pat_", len: (20, UNBOUNDED), bytes: is_word },
    Shape { prefix: "glpat-", len: (16, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "xoxa-", len: (10, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "xoxb-", len: (10, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "xoxp-", len: (10, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "xoxr-", len: (10, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "xoxs-", len: (10, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "sk_live_", len: (10, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "sk_test_", len: (10, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "rk_live_", len: (10, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "sk-", len: (20, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "AIza", len: (30, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "ya29.", len: (20, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "npm_", len: (30, UNBOUNDED), bytes: is_alphanumeric },
    Shape { prefix: "pypi-", len: (30, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "dckr_pat_", len: (20, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "hvs.", len: (20, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "hvb.", len: (20, UNBOUNDED), bytes: is_url_safe },
    Shape { prefix: "AGE-SECRET-KEY-1", len: (50, UNBOUNDED), bytes: is_upper },
    // A JSON web token (RFC 7519): `{"` in base64.
    Shape { prefix: "eyJ", len: (17, UNBOUNDED), bytes: is_jwt },
];

fn is_upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_url_safe(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

fn is_jwt(byte: u8) -> bool {
    is_url_safe(byte) || byte == b'.'
}

/// The token whose prefix `hit` is.
pub(super) fn token(text: &str, hit: &Range<usize>) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let shape = SHAPES.iter().find(|shape| shape.prefix == &text[hit.clone()])?;
    if hit.start > 0 && is_url_safe(bytes[hit.start - 1]) {
        return None;
    }
    let len = bytes[hit.end..].iter().take_while(|byte| (shape.bytes)(**byte)).count();
    let token = &bytes[hit.start..hit.end + len];
    let (least, most) = shape.len;
    let fits = match shape.prefix {
        "eyJ" => token.iter().filter(|byte| **byte == b'.').count() >= 2,
        // Words with dashes between them have no digits.
        "sk-" | "pypi-" => token.iter().filter(|byte| byte.is_ascii_digit()).count() >= 2,
        "AKIA" | "ASIA" => bytes.get(hit.end + len).is_none_or(|byte| !is_word(*byte)),
        _ => true,
    };
    (fits && (least..=most).contains(&len)).then_some(hit.start..hit.end + len)
}

/// The most bytes of what stands before the `@` of an address.
const USERINFO_BYTES_MAX: usize = 1024;

/// The password in an address, `hit` being its `://` (RFC 3986, 3.2.1).
pub(super) fn userinfo(text: &str, hit: &Range<usize>) -> Option<Range<usize>> {
    let ends = |byte: &u8| {
        byte.is_ascii_whitespace() || matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'`')
    };
    let authority = text.as_bytes()[hit.end..].iter().take(USERINFO_BYTES_MAX).take_while(|byte| !ends(byte));
    let (mut colon, mut at) = (None, None);
    for (i, byte) in authority.enumerate() {
        match byte {
            b':' if colon.is_none() && at.is_none() => colon = Some(hit.end + i),
            b'@' => at = Some(hit.end + i),
            _ => {}
        }
    }
    let password = colon? + 1..at?;
    (!is_plain(&text[password.clone()], None)).then_some(password)
}

/// The most lines of a private key.
pub(super) const KEY_LINES_MAX: usize = 400;
/// The most bytes of a line of a private key.
const KEY_LINE_BYTES_MAX: usize = 16 << 10;
/// How the first line of a block begins (RFC 7468).
pub(super) const BEGIN: &str = "-----BEGIN ";
/// How its last line begins.
pub(super) const END: &str = "-----END ";

/// Whether a private key begins with the `-----BEGIN ` that ends at `at`; where its first line ends.
pub(super) fn private_key(text: &str, at: usize) -> Option<usize> {
    let label_bytes_max = 48;
    let label = &text.as_bytes()[at..text.len().min(at + label_bytes_max)];
    let len = label.iter().position(|byte| *byte == b'-')?;
    let label = &text[at..at + len];
    let behind = text[at + len..].strip_prefix("-----").map(|rest| text.len() - rest.len())?;
    label.contains("PRIVATE KEY").then_some(behind)
}

/// What of a private key's lines stands here: up to its end, or to what can't be of a key. Also whether it goes on.
pub(super) fn key_body(text: &str, at: usize) -> (Range<usize>, bool) {
    let mut body = at..at;
    let mut rest = at;
    for _ in 0..KEY_LINES_MAX {
        // No line is read further than to what can't be of a key: the next key may begin behind it.
        let line = &text[rest..text.floor_char_boundary(rest + key_line_len(&text.as_bytes()[rest..]))];
        let behind = &text[rest + line.len()..];
        let is_last = behind.starts_with(END);
        if !(is_last || behind.is_empty() || behind.starts_with('\n')) || !is_key_line(line) {
            return (body, false);
        }
        let said = line.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        if let Some(from) = line.find(said).filter(|_| !said.is_empty()) {
            let from = rest + from;
            body = if body.is_empty() { from } else { body.start }..from + said.len();
        }
        if is_last || behind.is_empty() {
            return (body, !is_last);
        }
        rest += line.len() + 1;
    }
    (body, true)
}

/// How much stands here before the line ends, or something comes that no line of a key has.
fn key_line_len(bytes: &[u8]) -> usize {
    let ends = |&(at, byte): &(usize, &u8)| match byte {
        b'\n' => true,
        b'-' => bytes[at..].starts_with(b"-----"),
        // Of ASCII, what may stand in a field too; a comment may have other characters.
        byte => matches!(byte, b'`' | b'$' | b'(' | b')' | b';' | b'&' | b'<'),
    };
    bytes
        .iter()
        .take(KEY_LINE_BYTES_MAX + 1)
        .enumerate()
        .find(ends)
        .map_or_else(|| bytes.len().min(KEY_LINE_BYTES_MAX + 1), |(at, _)| at)
}

/// Whether this may be a line of a private key: base64, a field, or nothing. A shell may have put a prompt before it.
pub(super) fn is_key_line(line: &str) -> bool {
    const FIELDS: &[&str] = &["Proc-Type:", "DEK-Info:", "Version:", "Comment:", "Hash:", "Charset:"];
    if line.len() > KEY_LINE_BYTES_MAX {
        return false;
    }
    let line = line.trim();
    let line =
        line.rsplit_once("> ").map_or(line, |(prompt, line)| if prompt.len() < 16 { line } else { prompt });
    let line = line.trim_matches(|c: char| c.is_whitespace() || matches!(c, '>' | '"' | '\'' | ',' | '|'));
    FIELDS.iter().any(|field| line.starts_with(field))
        || line.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\'))
}
