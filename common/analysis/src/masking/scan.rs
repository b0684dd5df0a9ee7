//! The built-in rules: one pass over a text that stops at what may come before a secret, and looks closely there.
//!
//! Every step back and every look ahead that may come to nothing has a bound, so that hostile text takes linear time.

use std::{ops::Range, sync::LazyLock};

use regex::{Regex, escape};

use super::{
    shapes::{self, BEGIN, SHAPES},
    tools::{TOOLS, Takes, Tool, is_switch_of_curl, short_option},
    words::{Quotes, Word, is_plain, skip_blanks, word},
};

/// What may come before a secret, in small letters.
const WORDS: &[&str] = &[
    "secret access key",
    "authorization",
    "rediscli_auth",
    "from-literal",
    "--proxy-user",
    "credential",
    "kv patch",
    "kv put",
    "bearer",
    "secret",
    "--user",
    "login",
    "token",
    "pass",
    "key",
    "pwd",
    "pw",
];

static TRIGGERS: LazyLock<Regex> = LazyLock::new(|| {
    let mut tools: Vec<_> = TOOLS.iter().map(|(name, _)| *name).collect();
    tools.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let cased =
        SHAPES.iter().map(|shape| shape.prefix).chain(tools).map(escape).collect::<Vec<_>>().join("|");
    let words = WORDS.iter().map(|word| escape(word)).collect::<Vec<_>>().join("|");
    // ASCII only: the automaton stays small, and matches are on boundaries of characters.
    let pattern = format!("://|{BEGIN}|[ \\t\\n'\"]-[A-Za-z0-9#]|{cased}|(?i-u:{words})");
    Regex::new(&pattern).expect("built from literals")
});

/// The most words of a command line that are looked at ahead.
const WORDS_AHEAD_MAX: usize = 64;

/// What has been found in a text.
#[derive(Default)]
pub(super) struct Found {
    /// Where the secrets are, one behind the other.
    pub(super) secrets: Vec<Range<usize>>,
    /// Whether the text ends inside a private key.
    pub(super) open_key: bool,
}

/// What is secret in a text.
pub(super) fn scan(text: &str) -> Found {
    let mut scan = Scan { text, quotes: Quotes::default(), tool: None, found: Found::default() };
    let mut at = 0;
    while let Some(hit) = TRIGGERS.find_at(text, at) {
        let hit = hit.range();
        scan.quotes.advance(text, hit.start);
        let before = scan.found.secrets.len();
        scan.trigger(&hit);
        at = hit.start + 1;
        if scan.found.secrets.len() > before
            && let Some(last) = scan.found.secrets.last()
        {
            at = at.max(last.end);
        }
    }
    scan.found
}

pub(super) struct Scan<'a> {
    pub(super) text: &'a str,
    pub(super) quotes: Quotes,
    /// The program whose arguments these are, and where they begin.
    tool: Option<(Tool, usize)>,
    found: Found,
}

impl Scan<'_> {
    fn trigger(&mut self, hit: &Range<usize>) {
        let what = &self.text[hit.clone()];
        match what {
            "://" => self.found.secrets.extend(shapes::userinfo(self.text, hit)),
            BEGIN => self.private_key(hit.end),
            _ if SHAPES.iter().any(|shape| shape.prefix == what) => {
                self.found.secrets.extend(shapes::token(self.text, hit));
            }
            _ if what.as_bytes().get(1) == Some(&b'-') && what.len() == 3 => {
                let secret = self.short_option(hit.end);
                self.found.secrets.extend(secret);
            }
            _ => {
                if let Some((_, tool)) = TOOLS.iter().find(|(name, _)| *name == what)
                    && self.is_whole_word(hit)
                {
                    self.tool = Some((*tool, hit.end));
                } else {
                    self.keyword(hit);
                }
            }
        }
    }

    fn keyword(&mut self, hit: &Range<usize>) {
        let secret = match &*self.text[hit.clone()].to_ascii_lowercase() {
            "authorization" => self.authorization(hit.end),
            "from-literal" => self.literal(hit),
            "secret access key" => self.asked(hit.end),
            "login" => self.login(hit),
            "kv put" | "kv patch" => return self.kv_put(hit.end),
            "--user" | "--proxy-user" => self.user(hit.end),
            _ => self.named(hit),
        };
        self.found.secrets.extend(secret);
    }

    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    pub(super) fn before(&self, at: usize) -> Option<u8> {
        self.byte(at.checked_sub(1)?)
    }

    fn is_whole_word(&self, hit: &Range<usize>) -> bool {
        let joins = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'=');
        !self.before(hit.start).is_some_and(joins)
            && self.byte(hit.end).is_some_and(|byte| byte.is_ascii_whitespace() || byte == b'\\')
    }

    /// The program whose command line this is part of.
    pub(super) fn tool(&self) -> Option<Tool> {
        let (tool, at) = self.tool?;
        self.quotes.last_end().is_none_or(|end| end < at).then_some(tool)
    }

    /// The word at `at`, if it says something.
    pub(super) fn value(&self, at: usize, outer: Option<u8>) -> Option<Range<usize>> {
        let word = word(self.text, at, outer);
        (!word.is_plain(self.text)).then_some(word.inside)
    }

    /// The rest of what the open quote is around, or of the line.
    pub(super) fn rest(&self, from: usize, quote: Option<u8>) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let line = bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |len| from + len);
        let to = quote.and_then(|quote| bytes[from..line].iter().position(|byte| *byte == quote));
        let text = &self.text[from..to.map_or(line, |len| from + len)];
        let text = text.trim_end().trim_end_matches('\\');
        (!is_plain(text, quote)).then_some(from..from + text.len())
    }

    fn private_key(&mut self, at: usize) {
        let Some(begins) = shapes::private_key(self.text, at) else { return };
        let (body, goes_on) = shapes::key_body(self.text, begins);
        self.found.open_key = goes_on;
        if !is_plain(&self.text[body.clone()], None) {
            self.found.secrets.push(body);
        }
    }

    /// A short option whose letter ends at `end`.
    fn short_option(&mut self, end: usize) -> Option<Range<usize>> {
        let tool = self.tool()?;
        let mut end = end;
        if tool == Tool::Curl {
            while is_switch_of_curl(self.byte(end - 1)?) {
                end += 1;
            }
        }
        let letter = self.byte(end - 1)?;
        // With these the password is elsewhere, and another command follows.
        if tool == Tool::Sshpass && matches!(letter, b'd' | b'e' | b'f') {
            self.tool = None;
        }
        let takes = short_option(tool, letter)?;
        let attached = self.byte(end).is_some_and(|byte| !byte.is_ascii_whitespace() && byte != b'\\');
        let at = match takes {
            Takes::Attached if !attached => return None,
            Takes::Attached => end,
            _ if attached => end + usize::from(self.byte(end) == Some(b'=')),
            _ => skip_blanks(self.text, end),
        };
        if tool == Tool::Sshpass {
            self.tool = None;
        }
        match takes {
            Takes::Behind(sign) => self.behind(at, sign),
            _ => self.value(at, self.quotes.open()),
        }
    }

    /// What stands behind a sign in the word at `at`.
    fn behind(&self, at: usize, sign: u8) -> Option<Range<usize>> {
        let Word { inside, .. } = word(self.text, at, self.quotes.open());
        let name = self.text.as_bytes()[inside.clone()].iter().position(|byte| *byte == sign)?;
        let secret = inside.start + name + 1..inside.end;
        (!is_plain(&self.text[secret.clone()], None)).then_some(secret)
    }

    /// `curl --user name:password`.
    fn user(&self, end: usize) -> Option<Range<usize>> {
        let sign = self.byte(end)?;
        if self.tool()? != Tool::Curl || !matches!(sign, b' ' | b'\t' | b'=') {
            return None;
        }
        self.behind(skip_blanks(self.text, end + usize::from(sign == b'=')), b':')
    }

    /// `docker login …` takes a password from here on, `vault login` a token.
    fn login(&mut self, hit: &Range<usize>) -> Option<Range<usize>> {
        if !self.is_whole_word(hit) {
            return None;
        }
        match self.tool()? {
            Tool::Registry => self.tool = Some((Tool::Login, hit.end)),
            Tool::Vault => {
                let token = self
                    .arguments(hit.end)
                    .into_iter()
                    .find(|word| !self.text[word.start..].starts_with('-'))?;
                return (!self.text[token.clone()].contains('='))
                    .then(|| self.value(token.start, self.quotes.open()))?;
            }
            _ => {}
        }
        None
    }

    /// `vault kv put path name=value …`.
    fn kv_put(&mut self, at: usize) {
        if self.tool() != Some(Tool::Vault) {
            return;
        }
        for word in self.arguments(at) {
            let text = &self.text[word.clone()];
            let Some(name) = text.find('=').filter(|_| !text.starts_with('-')) else { continue };
            let at = word.start + name + 1;
            if self.byte(at) != Some(b'@') {
                let secret = self.value(at, self.quotes.open());
                self.found.secrets.extend(secret);
            }
        }
    }

    /// The words of a command from here on.
    fn arguments(&self, mut at: usize) -> Vec<Range<usize>> {
        let mut words = Vec::new();
        for _ in 0..WORDS_AHEAD_MAX {
            at = skip_blanks(self.text, at);
            let word = word(self.text, at, self.quotes.open());
            if word.end == at {
                break;
            }
            words.push(at..word.end);
            at = word.end;
        }
        words
    }

    /// `kubectl create secret … --from-literal=name=value`.
    fn literal(&self, hit: &Range<usize>) -> Option<Range<usize>> {
        const LOOK_BACK: usize = 256;
        let from = self.text.floor_char_boundary(hit.start.saturating_sub(LOOK_BACK));
        let before = &self.text[from..hit.start];
        if before.contains("configmap") || before.contains(" cm ") {
            return None;
        }
        let sign = self.byte(hit.end).filter(|byte| matches!(byte, b' ' | b'\t' | b'='))?;
        self.behind(skip_blanks(self.text, hit.end + usize::from(sign == b'=')), b'=')
    }

    /// `AWS Secret Access Key [None]: …`, as `aws configure` asks.
    fn asked(&self, end: usize) -> Option<Range<usize>> {
        let rest = self.text[end..].lines().next()?;
        let rest = match rest.strip_prefix(" [") {
            Some(default) => default.split_once(']')?.1,
            None => rest,
        };
        let value = rest.strip_prefix(':')?.trim_start();
        let from = end + self.text[end..].lines().next()?.len() - value.len();
        self.value(from, None)
    }

    /// `Authorization: Bearer …`, as a header, an entry of JSON, or an argument.
    fn authorization(&self, end: usize) -> Option<Range<usize>> {
        const SCHEMES: &[&str] = &[
            "bearer",
            "basic",
            "token",
            "digest",
            "apikey",
            "key",
            "negotiate",
            "ntlm",
            "oauth",
            "aws4-hmac-sha256",
        ];
        const LISTS: &[&str] = &["digest", "oauth", "aws4-hmac-sha256"];
        let (at, closed) = self.close_quote(end);
        let mut at = skip_blanks(self.text, at);
        if !matches!(self.byte(at), Some(b':' | b'=')) {
            return None;
        }
        at = skip_blanks(self.text, at + 1);
        let slashes = self.text.as_bytes()[at..].iter().take(8).take_while(|byte| **byte == b'\\').count();
        let mut quote = if closed.is_some() { None } else { self.quotes.open() };
        if let Some(opens @ (b'"' | b'\'')) = self.byte(at + slashes)
            && quote != Some(opens)
        {
            (at, quote) = (at + slashes + 1, Some(opens));
        }
        const SCHEME_BYTES_MAX: usize = 20;
        let scheme = self.text.as_bytes()[at..].iter().take(SCHEME_BYTES_MAX);
        let scheme = scheme.take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
        let scheme = self.text[at..at + scheme].to_ascii_lowercase();
        let from = skip_blanks(self.text, at + scheme.len());
        if !SCHEMES.contains(&&*scheme) || from == at + scheme.len() {
            let secret = self.value(at, quote)?;
            let text = &self.text[secret.clone()];
            return (text.len() >= 16 || text.bytes().any(|byte| byte.is_ascii_digit())).then_some(secret);
        }
        if quote.is_some() || LISTS.contains(&&*scheme) {
            return self.rest(from, quote);
        }
        self.value(from, quote)
    }

    /// Behind the quote that closes a name at `at`, and that quote.
    pub(super) fn close_quote(&self, at: usize) -> (usize, Option<u8>) {
        let slashes = self.text.as_bytes()[at..].iter().take(8).take_while(|byte| **byte == b'\\').count();
        match self.byte(at + slashes) {
            Some(quote @ (b'"' | b'\'')) => {
                let at = at + slashes + 1;
                (at + usize::from(self.byte(at) == Some(b']')), Some(quote))
            }
            _ => (at, None),
        }
    }
}
