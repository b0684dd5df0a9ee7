//! Findings for people: a table.

use std::io::{self, Write};

use super::{Finding, Level};

/// Columns of a table on a terminal: what every terminal has.
const COLUMNS: usize = 80;
/// The width of the column of levels.
const LEVEL: usize = 11;

/// Writes a table. On a terminal it has colours and is wrapped; elsewhere a sentence stays on its line.
///
/// # Errors
/// If it cannot be written.
pub fn print(out: &mut impl Write, findings: &[Finding], is_terminal: bool) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.about.len()).max().unwrap_or_default();
    for Finding { about, level, text, advice } in findings {
        let (word, code) = match level {
            Level::Ok => ("ok", "32"),
            Level::CannotTell => ("cannot tell", "36"),
            Level::Warning => ("warning", "33"),
            Level::Problem => ("problem", "31"),
        };
        let (on, off) = if is_terminal { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
        let columns = if is_terminal { COLUMNS.saturating_sub(LEVEL + width + 4) } else { usize::MAX };
        let mut lines = wrapped(text, columns).into_iter();
        let first = lines.next().unwrap_or_default();
        writeln!(out, "{on}{word:<LEVEL$}{off}  {about:<width$}  {first}")?;
        for line in lines {
            writeln!(out, "{:LEVEL$}  {:width$}  {line}", "", "")?;
        }
        let advice = advice.iter().flat_map(|advice| wrapped(advice, columns.saturating_sub(2)));
        for (mark, line) in std::iter::once("→").chain(std::iter::repeat(" ")).zip(advice) {
            writeln!(out, "{:LEVEL$}  {:width$}  {mark} {line}", "", "")?;
        }
    }
    Ok(())
}

/// Lines of at most so many characters, broken at spaces only, so that what is to be copied stays whole.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_finding_and_one_for_what_to_do() {
        let findings = [
            Finding::ok("reachable", "the store answers"),
            Finding::problem("bpffs", "not mounted").advice("mount it"),
        ];
        let mut plain = Vec::new();
        print(&mut plain, &findings, false).expect("memory");
        let lines = [
            "ok           reachable  the store answers",
            "problem      bpffs      not mounted",
            "                        → mount it",
        ];
        assert_eq!(String::from_utf8(plain).expect("text").lines().collect::<Vec<_>>(), lines);
        let mut coloured = Vec::new();
        print(&mut coloured, &findings, true).expect("memory");
        assert!(String::from_utf8(coloured).expect("text").contains("\x1b[31mproblem"));
    }

    #[test]
    fn on_a_terminal_no_line_is_longer_than_eighty_columns_and_nothing_is_lost() {
        let text = "a sentence of many words that go on and on ".repeat(6);
        let finding = Finding::problem("capabilities", text.trim()).advice(text.trim());
        let mut out = Vec::new();
        print(&mut out, &[finding], true).expect("memory");
        let out = String::from_utf8(out).expect("text").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert!(out.lines().all(|line| line.chars().count() <= COLUMNS), "{out}");
        let words: Vec<_> = out.split_whitespace().filter(|word| *word != "→").skip(2).collect();
        assert_eq!(words.join(" "), format!("{} {}", text.trim(), text.trim()));
        assert_eq!(wrapped("a-word-that-is-longer b", 5), ["a-word-that-is-longer", "b"]);
    }
}
