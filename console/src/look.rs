//! How output looks: marks and colours on a terminal, plain ASCII everywhere else.
//!
//! The decision is made once, from values that are passed in, so that tests need no terminal.

/// What the place the output goes to can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    marks: bool,
    colour: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Can't be said.
    Open,
}

impl Look {
    /// Marks and colours for a terminal; colours not if `NO_COLOR` is set (<https://no-color.org>) or the
    /// terminal is `dumb`, marks not if the locale is not UTF-8.
    #[must_use]
    pub fn of(terminal: bool, env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| env(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let utf8 = ["utf-8", "utf8"].iter().any(|name| locale.to_ascii_lowercase().contains(name));
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self { marks: terminal && utf8, colour: terminal && !dumb && set("NO_COLOR").is_none() }
    }

    /// The mark of a check, four columns wide without its colour.
    #[must_use]
    pub fn mark(self, mark: Mark) -> String {
        let (sign, word, colour) = match mark {
            Mark::Good => ("✓   ", "ok  ", "32"),
            Mark::Bad => ("✗   ", "FAIL", "1;31"),
            Mark::Open => ("?   ", "?   ", "33"),
        };
        self.coloured(colour, if self.marks { sign } else { word })
    }

    /// A text in the colour of a mark.
    #[must_use]
    pub fn verdict(self, mark: Mark, text: &str) -> String {
        let colour = match mark {
            Mark::Good => "1;32",
            Mark::Bad => "1;31",
            Mark::Open => "1;33",
        };
        self.coloured(colour, text)
    }

    /// A heading.
    #[must_use]
    pub fn heading(self, text: &str) -> String {
        self.coloured("1", text)
    }

    /// What was looked for.
    #[must_use]
    pub fn found(self, text: &str) -> String {
        self.coloured("1;31", text)
    }

    /// What stands beside the matter.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.coloured("2", text)
    }

    fn coloured(self, sgr: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{sgr}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(terminal: bool, vars: &[(&str, &str)]) -> Look {
        Look::of(terminal, |name| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn marks_and_colours_are_for_terminals_that_can_show_them() {
        let utf8 = ("LANG", "C.UTF-8");
        assert_eq!(look(true, &[utf8]).mark(Mark::Good), "\x1b[32m✓   \x1b[0m");
        assert_eq!(look(true, &[utf8, ("NO_COLOR", "1")]).mark(Mark::Bad), "✗   ");
        assert_eq!(look(true, &[("LANG", "C"), ("TERM", "dumb")]).mark(Mark::Bad), "FAIL");
        assert_eq!(look(false, &[utf8]).mark(Mark::Good), "ok  ");
    }
}
