//! The built-in rules for values with a name: options, variables, fields, headers.

use std::ops::Range;

use super::{
    names::{name_around, says_secret},
    scan::Scan,
    tools::Tool,
    words::{Word, closing, is_plain, skip_blanks, word},
};

/// What comes between a name and its value.
enum Sign {
    /// `=`, or what means the same. With blanks before, behind.
    Equals {
        before: bool,
        behind: bool,
    },
    /// `:`. With blanks behind.
    Colon {
        behind: bool,
    },
    Nothing,
}

impl Scan<'_> {
    /// The value of what has a name that says so.
    pub(super) fn named(&mut self, hit: &Range<usize>) -> Option<Range<usize>> {
        let whole = name_around(self.text, hit)?;
        let name = self.text[whole.clone()].trim_start_matches(['-', '.']);
        let start = whole.end - name.len();
        let dashes = self.text[whole.start..start].len();
        let (at, closed) = self.close_quote(whole.end);
        let outer = self.quotes.open().filter(|open| closed != Some(*open));
        if matches!(name, "passin" | "passout") || (dashes == 1 && name == "pass") {
            return self.openssl(whole.end);
        }
        let sign = self.sign(at);
        if matches!(sign, (Sign::Nothing, _)) && closed.is_some()
            || !says_secret(name)
            || name.starts_with("no-")
        {
            return None;
        }
        let value = match sign {
            (Sign::Equals { before: false, behind: false }, at) => self.tight(whole.start, closed, at, outer),
            (Sign::Equals { before: true, .. }, at) => self.loose(whole.start, closed, at, outer),
            (Sign::Equals { .. }, _) => None,
            (Sign::Colon { behind }, at) => self.field(whole.start, name, closed, behind, at, outer),
            (Sign::Nothing, at) if dashes > 0 => self.option(name, whole.end, at, outer),
            (Sign::Nothing, at) => self.said(&whole, at, outer),
        }?;
        (!is_word_for_something(&self.text[value.clone()])).then_some(value)
    }

    fn sign(&self, at: usize) -> (Sign, usize) {
        let sign_at = skip_blanks(self.text, at);
        let behind = |at: usize| (skip_blanks(self.text, at) > at, skip_blanks(self.text, at));
        let rest = &self.text.as_bytes()[sign_at..];
        let len = match rest {
            [b'=', b'=' | b'~', ..] => return (Sign::Nothing, self.text.len()),
            [b'=', b'>', ..] | [b'+' | b':' | b'?', b'=', ..] => 2,
            [b'=', ..] => 1,
            [b':', b':', ..] => return (Sign::Nothing, self.text.len()),
            [b':', ..] => {
                let (behind, at) = behind(sign_at + 1);
                return (Sign::Colon { behind }, at);
            }
            _ => return (Sign::Nothing, sign_at),
        };
        let (behind, value_at) = behind(sign_at + len);
        (Sign::Equals { before: sign_at > at, behind }, value_at)
    }

    /// `NAME=value`, `--name=value`.
    fn tight(&self, start: usize, closed: Option<u8>, at: usize, outer: Option<u8>) -> Option<Range<usize>> {
        // In quotes that are around both, nothing separates.
        if let Some(quote) = self.before(start).filter(|byte| closed.is_none() && outer == Some(*byte))
            && self.byte(at) != Some(quote)
            && let Some(close) = closing(self.text.as_bytes(), at, quote)
        {
            return (!is_plain(&self.text[at..close], Some(quote))).then_some(at..close);
        }
        self.value(at, outer)
    }

    /// `name = value`, as in configuration and code.
    fn loose(&self, start: usize, closed: Option<u8>, at: usize, outer: Option<u8>) -> Option<Range<usize>> {
        let quoted = matches!(self.byte(at), Some(b'"' | b'\''));
        if quoted || closed.is_some() {
            return self.value(at, outer);
        }
        if self.begins_line(start) { self.rest_if_one_word(at) } else { None }
    }

    /// `name: value`, as in configuration, JSON and headers.
    fn field(
        &self,
        start: usize,
        name: &str,
        closed: Option<u8>,
        blank: bool,
        at: usize,
        outer: Option<u8>,
    ) -> Option<Range<usize>> {
        if closed.is_some() {
            let value = self.value(at, outer)?;
            let text = self.text[value.clone()].trim_end_matches([',', '}', ']']);
            return (!text.is_empty()).then_some(value.start..value.start + text.len());
        }
        let is_header =
            name.get(..2).is_some_and(|x| x.eq_ignore_ascii_case("x-")) || name == "PRIVATE-TOKEN";
        if !blank && !is_header {
            return None;
        }
        if let Some(quote) = self.before(start).filter(|byte| outer == Some(*byte)) {
            return self.rest(at, Some(quote));
        }
        if matches!(self.byte(at), Some(b'"' | b'\'')) || is_header {
            return self.value(at, outer);
        }
        if self.begins_line(start) { self.rest_if_one_word(at) } else { None }
    }

    /// `--name value`.
    fn option(&self, name: &str, end: usize, at: usize, outer: Option<u8>) -> Option<Range<usize>> {
        const PROSE: &[&str] = &[
            "and", "argument", "as", "flag", "for", "from", "in", "is", "must", "on", "option", "options",
            "or", "to", "was", "with",
        ];
        // A container's secret is named, and a file that holds a key, too.
        let is_name =
            matches!(self.tool(), Some(Tool::Registry)) && name == "secret" || name == "private-key";
        if at == end || is_name || self.byte(at) == Some(b'-') {
            return None;
        }
        self.value(at, outer).filter(|value| !PROSE.contains(&&self.text[value.clone()]))
    }

    /// `set -x NAME value`, `setenv NAME value`, `aws configure set aws_secret_access_key value`, `PASSWORD 'value'` in SQL.
    fn said(&self, name: &Range<usize>, at: usize, outer: Option<u8>) -> Option<Range<usize>> {
        let text = &self.text[name.clone()];
        if matches!(self.byte(at), Some(b'(')) && matches!(self.byte(at + 1), Some(b'\'')) {
            return self.value(at + 1, outer);
        }
        if at == name.end {
            return None;
        }
        let rest = &self.text.as_bytes()[at..];
        let by = rest.get(..3).filter(|word| word.eq_ignore_ascii_case(b"by ")).map_or(0, <[u8]>::len);
        if self.byte(at + by) == Some(b'\'') && outer != Some(b'\'') {
            return self.value(at + by, outer);
        }
        let is_set = self.is_set_before(name.start)
            || matches!(self.tool(), Some(Tool::Mysqladmin | Tool::NetworkManager)) && text == "password";
        let value = self.value(at, outer)?;
        let is_aws = matches!(text, "aws_secret_access_key" | "aws_session_token") && value.len() >= 16;
        (is_set || is_aws).then_some(value)
    }

    /// `-passin pass:value`, of openssl.
    fn openssl(&self, end: usize) -> Option<Range<usize>> {
        let at = skip_blanks(self.text, end);
        if at == end {
            return None;
        }
        let Word { inside, .. } = word(self.text, at, self.quotes.open());
        let secret = inside.start + self.text[inside.clone()].strip_prefix("pass:").map(|_| "pass:".len())?
            ..inside.end;
        (!is_plain(&self.text[secret.clone()], None)).then_some(secret)
    }

    /// Whether a shell's `set` (fish) or `setenv` (csh) stands before.
    fn is_set_before(&self, at: usize) -> bool {
        const LOOK_BACK: usize = 48;
        let from = self.text.floor_char_boundary(at.saturating_sub(LOOK_BACK));
        let mut words = self.text[from..at].split_ascii_whitespace().rev();
        let word = words.find(|word| !word.starts_with('-'));
        matches!(word, Some("set" | "setenv"))
    }

    /// Whether nothing that says anything stands before on the line.
    fn begins_line(&self, at: usize) -> bool {
        const LOOK_BACK: usize = 96;
        let from = self.text.floor_char_boundary(at.saturating_sub(LOOK_BACK));
        let before = &self.text[from..at];
        let before = match before.rsplit_once('\n') {
            Some((_, line)) => line,
            None if from > 0 => return false,
            None => before,
        };
        before
            .trim_start()
            .trim_start_matches("export ")
            .chars()
            .all(|c| matches!(c, ' ' | '\t' | '-' | '>' | '<' | '*' | '{' | ',' | '+'))
    }

    /// The value at `at`, if it is one word that ends the line.
    fn rest_if_one_word(&self, at: usize) -> Option<Range<usize>> {
        let found = word(self.text, at, None);
        let behind = self.text[found.end..].lines().next().unwrap_or_default();
        let behind = behind.trim_start_matches([',', ';']).trim();
        let ends = behind.is_empty() || behind.starts_with('#');
        (ends && !found.is_plain(self.text)).then_some(found.inside)
    }
}

/// Whether a value only says that there is one or none, or is a manual's word for one.
fn is_word_for_something(value: &str) -> bool {
    const WORDS: &[&str] = &["true", "false", "yes", "no", "on", "off", "null", "none", "nil", "undefined"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(value))
        || (value.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && says_secret(value))
}
