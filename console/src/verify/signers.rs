//! OpenSSH's `allowed_signers` file: who may sign (ssh-keygen(1), ALLOWED SIGNERS).
//!
//! Honoured are principals with their patterns, `namespaces`, `valid-after` and `valid-before`. A line that
//! can't be read, asks for something else or names a certificate authority allows nobody; it is kept with the
//! reason, for the case that the signer should have been on it. Times are judged against the time that is passed in, as
//! `ssh-keygen -Y verify` judges them against the present.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use ssh_key::{PublicKey, public::KeyData};

use super::pattern::matches_list;

/// The most bytes of such a file.
pub const ALLOWED_SIGNERS_MAX: u64 = 1 << 20;

/// Why a line allows nobody.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Principals and key are not both there.
    #[error("it should be: principals, options if any, key type, key")]
    Form,
    /// A quote is not closed.
    #[error("a quote is not closed")]
    Quote,
    /// The key can't be read.
    #[error("its key can't be read")]
    Key,
    /// Certificates are not supported.
    #[error("it is for a certificate authority, which is not supported")]
    CertAuthority,
    /// An option that is not known.
    #[error("its option {option:?} is not supported")]
    Option {
        /// The option.
        option: String,
    },
    /// A time in another form.
    #[error("its time {time:?} is not YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]")]
    Time {
        /// The text.
        time: String,
    },
}

/// Why a key is not allowed to sign.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No line has the key.
    #[error("is not listed in {source_name}")]
    NotListed {
        /// The file.
        source_name: String,
    },
    /// Its lines are for others.
    #[error("is not listed for {identity}, see line {line}")]
    Identity {
        /// The identity that was asked for.
        identity: String,
        /// The line with the key.
        line: usize,
    },
    /// Its lines are for other purposes.
    #[error("may not sign in the namespace {namespace}, see line {line}")]
    Namespace {
        /// The namespace that was asked for.
        namespace: String,
        /// The line with the key.
        line: usize,
    },
    /// Not yet valid.
    #[error("is valid only from {from}, see line {line}")]
    NotYet {
        /// From when.
        from: Timestamp,
        /// The line with the key.
        line: usize,
    },
    /// No longer valid.
    #[error("was valid until {until}, see line {line}")]
    Expired {
        /// Until when.
        until: Timestamp,
        /// The line with the key.
        line: usize,
    },
}

#[derive(Debug)]
struct Line {
    number: usize,
    principals: String,
    key: KeyData,
    conditions: Conditions,
}

#[derive(Debug, Default)]
struct Conditions {
    namespaces: Option<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

/// Who may sign.
#[derive(Debug)]
pub struct AllowedSigners {
    source: String,
    lines: Vec<Line>,
    unused: Vec<(usize, LineError)>,
}

impl AllowedSigners {
    /// Reads the text of such a file; `source` is what messages call it, `zone` where its times without `Z` are.
    #[must_use]
    pub fn parse(source: &str, text: &str, zone: &TimeZone) -> Self {
        let mut this = Self { source: source.to_owned(), lines: Vec::new(), unused: Vec::new() };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match parse_line(number, line, zone) {
                Ok(line) => this.lines.push(line),
                Err(error) => this.unused.push((number, error)),
            }
        }
        this
    }

    /// What messages call the file.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Lines that allow nobody, and why.
    pub fn unused(&self) -> impl Iterator<Item = (usize, &LineError)> {
        self.unused.iter().map(|(line, error)| (*line, error))
    }

    /// The line that allows this key to sign as this identity.
    ///
    /// # Errors
    /// What stands in the way on the line that comes nearest.
    pub fn check(
        &self,
        identity: &str,
        key: &KeyData,
        namespace: &str,
        now: Timestamp,
    ) -> Result<usize, Refused> {
        let mut refused = Refused::NotListed { source_name: self.source.clone() };
        for line in self.lines.iter().filter(|line| line.key == *key) {
            match line.check(identity, namespace, now) {
                Ok(()) => return Ok(line.number),
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }
}

impl Line {
    fn check(&self, identity: &str, namespace: &str, now: Timestamp) -> Result<(), Refused> {
        let Self { number: line, principals, key: _, conditions } = self;
        let line = *line;
        let Conditions { namespaces, valid_after, valid_before } = conditions;
        if !matches_list(principals, identity) {
            return Err(Refused::Identity { identity: identity.to_owned(), line });
        }
        if namespaces.as_ref().is_some_and(|list| !matches_list(list, namespace)) {
            return Err(Refused::Namespace { namespace: namespace.to_owned(), line });
        }
        if let Some(from) = valid_after.filter(|from| now < *from) {
            return Err(Refused::NotYet { from, line });
        }
        if let Some(until) = valid_before.filter(|until| now > *until) {
            return Err(Refused::Expired { until, line });
        }
        Ok(())
    }
}

fn parse_line(number: usize, line: &str, zone: &TimeZone) -> Result<Line, LineError> {
    let (principals, rest) = split_word(line)?;
    let principals = principals.replace('"', "");
    let (options, key) = if parse_key(rest).is_some() { ("", rest) } else { split_word(rest)? };
    let conditions = parse_options(options, zone)?;
    if principals.is_empty() || key.is_empty() {
        return Err(LineError::Form);
    }
    let key = parse_key(key).ok_or(LineError::Key)?;
    Ok(Line { number, principals, key, conditions })
}

fn parse_key(text: &str) -> Option<KeyData> {
    // Whatever follows key type and key is a comment.
    let words: Vec<_> = text.split_whitespace().take(2).collect();
    PublicKey::from_openssh(&words.join(" ")).ok().map(Into::into)
}

/// The first word, in which quotes may hold spaces, and what follows it.
fn split_word(text: &str) -> Result<(&str, &str), LineError> {
    let mut quoted = false;
    let end = text.find(|c: char| {
        quoted ^= c == '"';
        !quoted && c.is_whitespace()
    });
    if quoted {
        return Err(LineError::Quote);
    }
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    Ok((word, rest.trim_start()))
}

fn parse_options(text: &str, zone: &TimeZone) -> Result<Conditions, LineError> {
    let mut conditions = Conditions::default();
    let mut quoted = false;
    let options = text.split(|c| {
        quoted ^= c == '"';
        !quoted && c == ','
    });
    for option in options.filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        match name.to_ascii_lowercase().as_str() {
            "namespaces" => conditions.namespaces = Some(value.to_owned()),
            "valid-after" => conditions.valid_after = Some(parse_time(value, zone)?),
            "valid-before" => conditions.valid_before = Some(parse_time(value, zone)?),
            "cert-authority" => return Err(LineError::CertAuthority),
            _ => return Err(LineError::Option { option: option.to_owned() }),
        }
    }
    Ok(conditions)
}

fn parse_time(text: &str, zone: &TimeZone) -> Result<Timestamp, LineError> {
    let error = || LineError::Time { time: text.to_owned() };
    let (digits, zone) = match text.strip_suffix('Z') {
        Some(digits) => (digits, TimeZone::UTC),
        None => (text, zone.clone()),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    let full = match digits.len() {
        8 => format!("{digits}000000"),
        12 => format!("{digits}00"),
        14 => digits.to_owned(),
        _ => return Err(error()),
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", &full).map_err(|_| error())?;
    Ok(time.to_zoned(zone).map_err(|_| error())?.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn signers(text: &str) -> AllowedSigners {
        AllowedSigners::parse("FILE", text, &TimeZone::UTC)
    }

    fn check(line: &str) -> Result<usize, String> {
        let key = PublicKey::from_openssh(KEY).expect("a key");
        let now = "2026-06-01T00:00:00Z".parse().expect("a time");
        signers(line).check("weir-agent", key.key_data(), "weir", now).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_that_openssh_takes_allow_the_signer() {
        for line in [
            format!("weir-agent {KEY}"),
            format!("  weir-agent  {KEY} a comment of three words  "),
            format!("\"alice,weir-*\" namespaces=\"git,weir\" {KEY}"),
            format!("*,!bob NameSpaces=\"w?ir\",valid-after=\"20260101\",valid-before=20270101120000Z {KEY}"),
        ] {
            assert_eq!(check(&line), Ok(1), "{line}");
        }
        assert_eq!(check(&format!("# agents\n\nbob {KEY}\nweir-agent {KEY}\n")), Ok(4));
    }

    #[test]
    fn what_stands_in_the_way_is_named_with_its_line() {
        let refused = |line: String| check(&line).expect_err("not allowed");
        assert_eq!(refused(String::new()), "is not listed in FILE");
        assert_eq!(refused(format!("bob {KEY}")), "is not listed for weir-agent, see line 1");
        assert_eq!(refused(format!("*,!weir-agent {KEY}")), "is not listed for weir-agent, see line 1");
        let namespace = refused(format!("* namespaces=\"git\" {KEY}"));
        assert_eq!(namespace, "may not sign in the namespace weir, see line 1");
        let early = refused(format!("* valid-after=\"20270101Z\" {KEY}"));
        assert_eq!(early, "is valid only from 2027-01-01T00:00:00Z, see line 1");
        let late = refused(format!("* valid-before=\"202601011230\" {KEY}"));
        assert_eq!(late, "was valid until 2026-01-01T12:30:00Z, see line 1");
    }

    #[test]
    fn lines_that_ask_for_more_than_is_supported_allow_nobody_and_say_why() {
        let unused = |line: String| {
            assert_eq!(check(&line), Err("is not listed in FILE".into()), "{line}");
            signers(&line).unused.pop().expect("a reason").1
        };
        assert_eq!(unused(format!("* cert-authority {KEY}")), LineError::CertAuthority);
        assert_eq!(
            unused(format!("* touch=\"no\" {KEY}")),
            LineError::Option { option: "touch=\"no\"".into() }
        );
        assert_eq!(unused(format!("* valid-after=\"soon\" {KEY}")), LineError::Time { time: "soon".into() });
        assert_eq!(unused(format!("* namespaces=\"weir {KEY}")), LineError::Quote);
        assert_eq!(unused("weir-agent".into()), LineError::Form);
        assert_eq!(unused("* namespaces=\"weir\" ssh-ed25519 AAAA".into()), LineError::Key);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics_and_allows_nobody(text in ".*") {
            prop_assert!(check(&text).is_err());
        }
    }
}
