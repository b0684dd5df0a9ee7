//! Text out of a session, kept short.

use std::borrow::Cow;

/// Cut to this many bytes; what was cut ends in `…`.
pub(crate) fn bounded(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

/// The same of bytes: what is no UTF-8 is replaced.
pub(crate) fn lossy(bytes: &[u8], bytes_max: usize) -> String {
    // One byte more than is wanted shows that there is more.
    let some = &bytes[..bytes.len().min(bytes_max.saturating_add(1))];
    let text = match String::from_utf8_lossy(some) {
        // A character that was cut apart is none that was invalid.
        Cow::Owned(text) if some.len() < bytes.len() => text.trim_end_matches('\u{fffd}').to_owned() + "…",
        text => text.into_owned(),
    };
    bounded(text, bytes_max)
}
