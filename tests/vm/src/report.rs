//! How the scenarios came out, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// How a scenario came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub name: &'static str,
    /// What went wrong; none if all is well.
    pub failure: Option<String>,
    /// How long it took to bring the machines back to where they were.
    pub restored: Duration,
    /// How long it took in all.
    pub took: Duration,
    /// What was measured.
    pub notes: Vec<String>,
}

impl Outcome {
    fn verdict(&self) -> &'static str {
        if self.failure.is_none() { "ok" } else { "FAILED" }
    }
}

/// One of them, when it is over.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let Outcome { name, failure, restored: _, took, notes } = outcome;
    let mut text = format!("  {name}: {}, {:.0} s", outcome.verdict(), took.as_secs_f64());
    text.extend(notes.iter().map(|note| format!("\n    {note}")));
    text.extend(failure.iter().map(|failure| format!("\n    {failure}")));
    text
}

/// All of them as a table, and below it what went wrong.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0).max("scenario".len());
    let mut text = format!("{:<width$}  {:<7}  {:>7}  measured\n", "scenario", "verdict", "seconds");
    for outcome in outcomes {
        let Outcome { name, failure: _, restored: _, took, notes } = outcome;
        let line = format!(
            "{name:<width$}  {:<7}  {:>7.1}  {}",
            outcome.verdict(),
            took.as_secs_f64(),
            notes.join("; ")
        );
        text += line.trim_end();
        text.push('\n');
    }
    for outcome in outcomes {
        text.extend(outcome.failure.iter().map(|failure| format!("\n{}: {failure}\n", outcome.name)));
    }
    text
}

/// All of them as JSON.
#[must_use]
pub fn json(outcomes: &[Outcome]) -> Value {
    let scenarios: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let Outcome { name, failure, restored, took, notes } = outcome;
            json!({
                "name": name,
                "ok": failure.is_none(),
                "failure": failure,
                "restore_seconds": restored.as_secs_f64(),
                "seconds": took.as_secs_f64(),
                "measured": notes,
            })
        })
        .collect();
    json!({ "scenarios": scenarios, "failed": failed(outcomes) })
}

/// How many failed.
#[must_use]
pub fn failed(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.failure.is_some()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes() -> [Outcome; 2] {
        let outcome = |name, failure: Option<&str>, notes: &[&str]| Outcome {
            name,
            failure: failure.map(str::to_owned),
            restored: Duration::from_secs(1),
            took: Duration::from_millis(2250),
            notes: notes.iter().map(|&note| note.to_owned()).collect(),
        };
        [outcome("one", None, &["pause 3 ms", "tail 0"]), outcome("another", Some("it broke"), &[])]
    }

    #[test]
    fn the_table_has_a_line_for_each_and_says_below_what_went_wrong() {
        let expected = "\
scenario  verdict  seconds  measured
one       ok           2.2  pause 3 ms; tail 0
another   FAILED       2.2

another: it broke
";
        assert_eq!(table(&outcomes()), expected);
    }

    #[test]
    fn a_program_reads_the_same() {
        let json = json(&outcomes());
        assert_eq!(json["failed"], 1);
        assert_eq!(json["scenarios"][0]["measured"][0], "pause 3 ms");
        assert_eq!(json["scenarios"][1]["failure"], "it broke");
    }
}
