//! Masks what is secret in command lines and transcripts. The evidence keeps the bytes.
//!
//! Rules can only guess: a secret that nothing announces stays, and a word that looks like one goes. What masks can be made
//! to hide things, too, so a reviewer who wonders reads the evidence. Only secrets are replaced, never the option, name or
//! quotes around them.

mod lines;
mod named;
mod names;
mod rules;
mod scan;
mod shapes;
mod tools;
mod words;

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

pub use self::{
    lines::{LineState, Lines},
    rules::{
        FILE_BYTES_MAX, MaskingConfig, MaskingError, NAME_BYTES_MAX, PATTERN_BYTES_MAX, RULES_MAX, RuleConfig,
    },
};

/// What stands for a secret.
pub const MASK: &str = "‹masked›";

/// Rules that say what is secret: the built-in ones, unless said otherwise. Cheap to clone.
#[derive(Clone)]
pub struct Masking {
    rules: Arc<All>,
}

struct All {
    builtin: bool,
    added: rules::Rules,
}

impl Default for Masking {
    fn default() -> Self {
        Self { rules: Arc::new(All { builtin: true, added: rules::Rules::default() }) }
    }
}

impl Masking {
    /// By these rules.
    ///
    /// # Errors
    /// If a rule has no name of its own, or a pattern that is wrong or too big.
    pub fn from_rules(config: &MaskingConfig) -> Result<Self, MaskingError> {
        let added = rules::Rules::new(&config.rule)?;
        Ok(Self { rules: Arc::new(All { builtin: config.builtin, added }) })
    }

    /// By the rules of a file: TOML with a table `masking`.
    ///
    /// # Errors
    /// If it is too long, no such TOML, or has a rule that can't be used.
    pub fn from_toml(text: &str) -> Result<Self, MaskingError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(MaskingError::FileTooLong { bytes: text.len() });
        }
        let file: rules::File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            // Not all of the error: it quotes the text.
            MaskingError::Syntax {
                line: before.matches('\n').count() + 1,
                reason: error.message().to_owned(),
            }
        })?;
        Self::from_rules(&file.masking)
    }

    /// The text with its secrets replaced, and how many these were.
    ///
    /// It gets no longer than four times its length and a mask's. Takes linear time, as far as the built-in rules go.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> (Cow<'a, str>, u32) {
        replaced(text, self.secrets(text).0)
    }

    /// Where the secrets of a text are, in no order, and whether it ends inside a private key.
    fn secrets(&self, text: &str) -> (Vec<Range<usize>>, bool) {
        let found = if self.rules.builtin { scan::scan(text) } else { scan::Found::default() };
        let mut secrets = found.secrets;
        self.rules.added.find(text, &mut secrets);
        (secrets, found.open_key)
    }
}

/// The text with a mask in the place of each secret, and how many these are.
fn replaced(text: &str, mut secrets: Vec<Range<usize>>) -> (Cow<'_, str>, u32) {
    secrets.retain(|range| !range.is_empty() && &text[range.clone()] != MASK);
    if secrets.is_empty() {
        return (Cow::Borrowed(text), 0);
    }
    let secrets = merged(secrets);
    let mut masked = String::with_capacity(text.len() + secrets.len() * MASK.len());
    let mut at = 0;
    for secret in &secrets {
        masked.push_str(&text[at..secret.start]);
        masked.push_str(MASK);
        at = secret.end;
    }
    masked.push_str(&text[at..]);
    (Cow::Owned(masked), u32::try_from(secrets.len()).unwrap_or(u32::MAX))
}

/// In order, those that overlap as one.
fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Patterns may hold what they are to hide.
impl fmt::Debug for Masking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let All { builtin, added } = &*self.rules;
        write!(f, "Masking(builtin: {builtin}, {} more rules)", added.len())
    }
}

#[cfg(test)]
mod tests;
