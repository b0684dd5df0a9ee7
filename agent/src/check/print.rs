//! Findings for people: a table.

use std::io::{self, Write};

use super::{Finding, Level};

/// Writes a table; `colour` is for terminals.
///
/// # Errors
/// If it cannot be written.
pub fn print(out: &mut impl Write, findings: &[Finding], colour: bool) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.about.len()).max().unwrap_or_default();
    for Finding { about, level, text, advice } in findings {
        let (word, code) = match level {
            Level::Ok => ("ok", "32"),
            Level::CannotTell => ("cannot tell", "36"),
            Level::Warning => ("warning", "33"),
            Level::Problem => ("problem", "31"),
        };
        let (on, off) = if colour { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
        writeln!(out, "{on}{word:<11}{off}  {about:<width$}  {text}")?;
        if let Some(advice) = advice {
            writeln!(out, "{:11}  {:width$}  → {advice}", "", "")?;
        }
    }
    Ok(())
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
}
