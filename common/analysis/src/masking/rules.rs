//! Rules that a customer adds: regular expressions in a `[masking]` table of TOML.

use std::{fmt, ops::Range};

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use serde::Deserialize;

/// The most rules.
pub const RULES_MAX: usize = 100;
/// The most bytes of a rule's name.
pub const NAME_BYTES_MAX: usize = 64;
/// The most bytes of a rule's pattern.
pub const PATTERN_BYTES_MAX: usize = 4 << 10;
/// The most bytes of a file of rules.
pub const FILE_BYTES_MAX: usize = 512 << 10;
/// The most bytes of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// The most bytes of all compiled patterns together.
const ALL_COMPILED_BYTES_MAX: usize = 16 << 20;
/// The most bytes of the automaton that is made while searching.
const CACHE_BYTES_MAX: usize = 2 << 20;
/// How deep a pattern nests at most.
const NEST_MAX: u32 = 50;
/// The group that is masked; without it the whole match is.
const SECRET: &str = "secret";

/// What is masked: the table `[masking]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskingConfig {
    /// Whether the built-in rules apply. They do if nothing is said.
    pub builtin: bool,
    /// More rules.
    pub rule: Vec<RuleConfig>,
}

impl Default for MaskingConfig {
    fn default() -> Self {
        Self { builtin: true, rule: Vec::new() }
    }
}

/// A rule: `[[masking.rule]]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What people call it.
    pub name: String,
    /// A regular expression in the syntax of the crate `regex`. What its group `secret` takes is masked, else all of it.
    pub pattern: String,
}

/// A pattern may hold what it is to hide.
impl fmt::Debug for RuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleConfig({}, pattern of {} bytes)", self.name, self.pattern.len())
    }
}

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) masking: MaskingConfig,
}

/// What is wrong with rules. No pattern is in it.
#[derive(Debug, thiserror::Error)]
pub enum MaskingError {
    /// The file is not what it should be.
    #[error("line {line} of the masking rules: {reason}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file is too long.
    #[error("the masking rules have {bytes} bytes; at most {FILE_BYTES_MAX} are read")]
    FileTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// There are too many rules.
    #[error("there are {rules} masking rules; at most {RULES_MAX} are taken")]
    TooMany {
        /// How many there are.
        rules: usize,
    },
    /// A rule has no name, or one that is too long.
    #[error(
        "masking rule {number} needs a name of 1 to {NAME_BYTES_MAX} bytes, of letters, digits, `-`, `_` and blanks"
    )]
    Name {
        /// Its number, from 1.
        number: usize,
    },
    /// Two rules have the same name.
    #[error("masking rule {number} has the name `{name}`, which another has; give it one of its own")]
    SameName {
        /// The number of the second, from 1.
        number: usize,
        /// The name.
        name: String,
    },
    /// A rule's pattern can't be used.
    #[error("masking rule {number} (`{name}`): {reason}")]
    Pattern {
        /// Its number, from 1.
        number: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The rules are too much together.
    #[error(
        "the masking rules are too much together: they compile to more than {ALL_COMPILED_BYTES_MAX} bytes"
    )]
    TooMuch,
}

/// Compiled rules.
#[derive(Default)]
pub(super) struct Rules {
    set: RegexSet,
    rules: Vec<(Regex, Option<usize>)>,
}

impl Rules {
    pub(super) fn new(configs: &[RuleConfig]) -> Result<Self, MaskingError> {
        if configs.len() > RULES_MAX {
            return Err(MaskingError::TooMany { rules: configs.len() });
        }
        let mut rules = Vec::new();
        for (i, config) in configs.iter().enumerate() {
            let number = i + 1;
            let named = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
            if !(1..=NAME_BYTES_MAX).contains(&config.name.len()) || !config.name.chars().all(named) {
                return Err(MaskingError::Name { number });
            }
            if configs[..i].iter().any(|other| other.name == config.name) {
                return Err(MaskingError::SameName { number, name: config.name.clone() });
            }
            let regex = compile(&config.pattern).map_err(|reason| MaskingError::Pattern {
                number,
                name: config.name.clone(),
                reason,
            })?;
            let group = regex.capture_names().position(|name| name == Some(SECRET));
            rules.push((regex, group));
        }
        let set = RegexSetBuilder::new(configs.iter().map(|config| &config.pattern))
            .size_limit(ALL_COMPILED_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX)
            .nest_limit(NEST_MAX)
            .build()
            .map_err(|_| MaskingError::TooMuch)?;
        Ok(Self { set, rules })
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// What they find in a text, in no order.
    pub(super) fn find(&self, text: &str, secrets: &mut Vec<Range<usize>>) {
        if self.rules.is_empty() {
            return;
        }
        for rule in self.set.matches(text) {
            let (regex, group) = &self.rules[rule];
            match group {
                None => secrets.extend(regex.find_iter(text).map(|found| found.range())),
                Some(group) => {
                    let all = regex.captures_iter(text);
                    secrets.extend(all.filter_map(|found| found.get(*group)).map(|found| found.range()));
                }
            }
        }
    }
}

/// The reason of an error does not repeat the pattern.
fn compile(pattern: &str) -> Result<Regex, String> {
    if !(1..=PATTERN_BYTES_MAX).contains(&pattern.len()) {
        return Err(format!(
            "its pattern must have 1 to {PATTERN_BYTES_MAX} bytes, it has {}",
            pattern.len()
        ));
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .nest_limit(NEST_MAX)
        .build();
    let regex = regex.map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => {
            format!(
                "its pattern compiles to more than {limit} bytes; use smaller counts in `{{…}}`, or `(?-u)`"
            )
        }
        error => {
            let text = error.to_string();
            let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
            format!("its pattern is no regular expression: {}", reason.unwrap_or("it can't be parsed"))
        }
    })?;
    if regex.is_match("") {
        return Err("its pattern matches the empty text, and so everywhere".to_owned());
    }
    Ok(regex)
}
