//! What is looked for, and what of a line is shown of it.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

/// The most bytes of a pattern.
const PATTERN_MAX: usize = 4 << 10;
/// The most bytes that a pattern compiles to.
const COMPILED_MAX: usize = 1 << 20;
/// The most bytes that a thread's cache of a pattern's states has.
const STATES_MAX: usize = 4 << 20;
/// The most characters of a line that are shown.
const SHOWN_MAX: usize = 800;
/// How many of these stand before the match in a line that is longer.
const SHOWN_BEFORE: usize = 200;
/// The most matches in a line that are marked.
const MARKED_MAX: usize = 100;

/// Why a pattern can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// Over [`PATTERN_MAX`].
    #[error("the pattern has more than {PATTERN_MAX} bytes")]
    TooLong,
    /// It is none, or too big.
    #[error("the pattern can't be used: {0}")]
    Regex(#[from] regex::Error),
}

/// A pattern that is looked for; takes time in proportion to what it is looked for in.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// What of a line is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// The text.
    pub(super) text: String,
    /// Where in it the pattern is.
    pub(super) matches: Vec<Range<usize>>,
    /// Whether there is more before and after it.
    pub(super) cut: [bool; 2],
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// If it is none, or too big.
    pub fn new(text: &str, ignore_case: bool) -> Result<Self, PatternError> {
        if text.len() > PATTERN_MAX {
            return Err(PatternError::TooLong);
        }
        let mut builder = RegexBuilder::new(text);
        builder.case_insensitive(ignore_case).size_limit(COMPILED_MAX).dfa_size_limit(STATES_MAX);
        Ok(Self(builder.build()?))
    }

    /// Whether it is in these bytes, not only in the first `seen` of them.
    pub(super) fn is_in(&self, bytes: &[u8], seen: usize) -> bool {
        match seen {
            0 => self.0.is_match(bytes),
            seen => self.0.find_iter(bytes).any(|found| found.end() > seen),
        }
    }

    /// What of a line is shown: all, or of a long one what stands around the first match.
    pub(super) fn show(&self, text: &str) -> Shown {
        let first = self.0.find(text.as_bytes()).map_or(0, |found| found.start());
        let from = text[..floor(text, first)].char_indices().rev().take(SHOWN_BEFORE).last();
        let from = match from {
            Some((at, _)) if text.chars().nth(SHOWN_MAX).is_some() => at,
            _ => 0,
        };
        let rest = &text[from..];
        let end = rest.char_indices().nth(SHOWN_MAX).map_or(rest.len(), |(at, _)| at);
        let shown = &rest[..end];
        // Where they are in the whole line: a part has other borders.
        let found = self.0.find_iter(text.as_bytes()).map(|found| found.range());
        let found = found.skip_while(|range| range.end < from).take_while(|range| range.start < from + end);
        let matches = found.take(MARKED_MAX).filter_map(|range| {
            let range = floor(shown, range.start.saturating_sub(from))..floor(shown, range.end - from);
            (!range.is_empty()).then_some(range)
        });
        Shown { text: shown.to_owned(), matches: matches.collect(), cut: [from > 0, end < rest.len()] }
    }
}

/// The last border between characters up to here.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_that_is_too_much_is_refused() {
        for pattern in ["(", "((a{1000}){1000}){1000}", &"(".repeat(2000), &"a".repeat(PATTERN_MAX + 1)] {
            assert!(Pattern::new(pattern, false).is_err(), "{}", pattern.len());
        }
        let pattern = Pattern::new("grüße", true).expect("a pattern");
        assert!(
            pattern.is_in("\u{1b}[1mGRÜSSE GRÜßE".as_bytes(), 0)
                && pattern.is_in(b"\xff gr\xc3\xbc\xc3\x9fe", 0)
        );
    }

    #[test]
    fn what_was_seen_before_is_not_found_again() {
        let pattern = Pattern::new("ab", false).expect("a pattern");
        assert!(pattern.is_in(b"xabx", 0) && pattern.is_in(b"xabx", 2) && !pattern.is_in(b"xabx", 3));
    }

    #[test]
    fn of_a_long_line_the_match_is_shown_and_what_stands_around_it() {
        let pattern = Pattern::new("needle", false).expect("a pattern");
        let shown = pattern.show(&format!("{}needle{}", "é".repeat(5000), "ü".repeat(5000)));
        assert_eq!((shown.text.chars().count(), shown.cut), (SHOWN_MAX, [true, true]));
        assert_eq!(&shown.text[shown.matches[0].clone()], "needle");
        let shown = pattern.show("a needle, a needle");
        assert_eq!((shown.matches, shown.cut), (vec![2..8, 12..18], [false, false]));
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_bounded_and_its_marks_are_in_it(pattern in "[a-c.*^$é]{0,5}", text in "(?s).{0,2000}") {
            let Ok(pattern) = Pattern::new(&pattern, false) else { return Ok(()) };
            let shown = pattern.show(&text);
            prop_assert!(shown.text.chars().count() <= SHOWN_MAX && text.contains(&shown.text));
            prop_assert!(shown.matches.iter().all(|range| shown.text.get(range.clone()).is_some()));
        }
    }
}
