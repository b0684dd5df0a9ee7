//! Whether a shell would ask for more of a command: enough of its grammar to tell (POSIX.1-2017, XCU 2.10), no more.

/// Words that open something which has to be closed.
const OPENERS: &[&str] = &["if", "case", "for", "while", "until", "select", "{"];
/// Words that close it.
const CLOSERS: &[&str] = &["fi", "esac", "done", "}"];
/// Words after which a command begins.
const LEADERS: &[&str] = &["if", "then", "else", "elif", "while", "until", "do", "!", "time", "{"];

/// What has been read of a command.
#[derive(Default)]
struct Reading {
    word: String,
    quoted: bool,
    /// Whether a command may begin here.
    begins: bool,
    open: usize,
    parens: usize,
    /// Whether the last thing wants something behind it.
    dangling: bool,
}

/// Whether a shell would ask for more after this.
pub(super) fn is_incomplete(command: &str) -> bool {
    let mut reading = Reading { begins: true, ..Reading::default() };
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                None => return true,
                Some('\n') if chars.peek().is_none() => return true,
                Some('\n') => {}
                Some(_) => reading.quote(),
            },
            '\'' | '"' | '`' => {
                reading.quote();
                loop {
                    match chars.next() {
                        None => return true,
                        Some('\\') if c != '\'' => {
                            chars.next();
                        }
                        Some(end) if end == c => break,
                        Some(_) => {}
                    }
                }
            }
            '#' if reading.word.is_empty() && !reading.quoted => {
                while chars.next_if(|c| *c != '\n').is_some() {}
            }
            ' ' | '\t' => reading.end_word(),
            '\n' | ';' | '&' | '|' => {
                reading.end_word();
                let twice = chars.next_if_eq(&c).is_some();
                reading.begins = true;
                reading.dangling = c == '|' || (c == '&' && twice) || (c == '\n' && reading.dangling);
            }
            '(' => {
                reading.end_word();
                reading.parens += 1;
                reading.begins = true;
            }
            ')' => {
                reading.end_word();
                // In `case`, patterns end in one.
                reading.begins = reading.parens == 0;
                reading.parens = reading.parens.saturating_sub(1);
            }
            c => reading.word.push(c),
        }
    }
    reading.end_word();
    reading.open > 0 || reading.parens > 0 || reading.dangling || heredoc_is_open(command)
}

impl Reading {
    fn quote(&mut self) {
        self.quoted = true;
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.word);
        let quoted = std::mem::take(&mut self.quoted);
        if word.is_empty() && !quoted {
            return;
        }
        self.dangling = false;
        let is_keyword = self.begins && !quoted;
        self.begins = is_keyword && LEADERS.contains(&word.as_str());
        if is_keyword && OPENERS.contains(&word.as_str()) {
            self.open += 1;
        } else if is_keyword && CLOSERS.contains(&word.as_str()) {
            self.open = self.open.saturating_sub(1);
        }
    }
}

fn heredoc_is_open(command: &str) -> bool {
    let Some((before, rest)) = command.split_once("<<") else { return false };
    if rest.starts_with('<') || before.ends_with('<') {
        return false;
    }
    let word = rest.trim_start_matches('-').trim_start();
    let word: String = word
        .trim_start_matches(['\'', '"', '\\'])
        .chars()
        .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .collect();
    !word.is_empty() && !command.lines().skip(1).any(|line| line.trim_start_matches('\t') == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_commands() {
        let unfinished = [
            "for i in 1 2; do",
            "for i in 1",
            "echo 'a",
            "cat <<E\nx",
            "a \\",
            "a |",
            "a &&",
            "(cd x",
            "if true; then",
            "case x in a)",
            "f() {",
            "echo $(ls",
            "if x; then y; else",
        ];
        for text in unfinished {
            assert!(is_incomplete(text), "{text}");
        }
    }

    #[test]
    fn finished_commands() {
        let finished = [
            "for i in 1; do x; done",
            "echo 'a'",
            "cat <<E\nx\nE",
            "cat <<< x",
            "echo it\\'s",
            "a | b",
            "echo we do",
            "case x in a) y;; b) z;; esac",
            "f() { x; }",
            "echo \"a\nb\"",
            "# it's",
            "sleep 1 &",
            "echo if",
            "a ||\nb",
            "echo ${x#y}",
            "{ a; b; }",
        ];
        for text in finished {
            assert!(!is_incomplete(text), "{text}");
        }
    }
}
