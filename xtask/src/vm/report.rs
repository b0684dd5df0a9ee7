//! What the matrix found, for people and for programs.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{boot::Outcome, qemu::Accelerator};

/// A table, and what is wrong below it.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let release = |outcome: &Outcome| outcome.transcript.release.clone().unwrap_or_else(|| "-".to_owned());
    let width = outcomes.iter().map(|outcome| release(outcome).len()).max().unwrap_or(0).max("release".len());
    let mut text = format!(
        "{:<8}{:<width$}  {:>6}  {:>6}  {:>4}  {:>7}  verdict\n",
        "kernel", "release", "passed", "failed", "slow", "seconds"
    );
    for outcome in outcomes {
        let Outcome { series, transcript, complaint, took, log: _ } = outcome;
        text += &format!(
            "{series:<8}{:<width$}  {:>6}  {:>6}  {:>4}  {:>7.1}  {}\n",
            release(outcome),
            transcript.passed,
            transcript.failed.len(),
            transcript.slow,
            took.as_secs_f64(),
            complaint.as_deref().unwrap_or("ok"),
        );
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.passed()) {
        text += &format!("\n{}: see {}\n", outcome.series, outcome.log.display());
        text.extend(outcome.transcript.failed.iter().map(|test| format!("  failed: {test}\n")));
    }
    for outcome in outcomes.iter().filter(|outcome| outcome.passed() && outcome.transcript.slow > 0) {
        text += &format!(
            "\n{}: kept waiting, as by a slow host ({}): see {}\n",
            outcome.series,
            outcome.transcript.slow,
            outcome.log.display()
        );
    }
    text
}

/// The same as JSON.
pub(super) fn json(outcomes: &[Outcome], accelerator: Accelerator) -> Result<String> {
    let kernels: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let Outcome { series, transcript, complaint, took, log } = outcome;
            json!({
                "kernel": series.to_string(),
                "release": transcript.release,
                "planned": transcript.planned,
                "passed": transcript.passed,
                "ignored": transcript.ignored,
                "failed": transcript.failed,
                "slow": transcript.slow,
                "seconds": took.as_secs_f64(),
                "ok": outcome.passed(),
                "complaint": complaint,
                "log": log.exists().then_some(log),
            })
        })
        .collect();
    let (passed, failed) = counts(outcomes);
    let report =
        json!({ "accelerator": accelerator.name(), "kernels": kernels, "passed": passed, "failed": failed });
    serde_json::to_string_pretty(&report).context("writing JSON")
}

/// How many kernels passed and failed.
pub(super) fn counts(outcomes: &[Outcome]) -> (usize, usize) {
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    (passed, outcomes.len() - passed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::console::Transcript, *};

    fn outcome(series: &str, complaint: Option<&str>) -> Outcome {
        let mut transcript = Transcript::default();
        transcript.line("weir-vm: kernel 5.10.0-46-cloud-amd64");
        transcript.line("weir-vm: passed one");
        transcript.line("weir-vm: round root");
        if complaint.is_some() {
            transcript.line("test a::b ... FAILED");
        }
        Outcome {
            series: series.parse().expect("a series"),
            transcript,
            complaint: complaint.map(str::to_owned),
            took: Duration::from_millis(1250),
            log: format!("target/vm/logs/{series}.log").into(),
        }
    }

    #[test]
    fn the_table_has_a_line_for_every_kernel_and_names_what_failed() {
        let expected = "\
kernel  release                passed  failed  slow  seconds  verdict
5.10    5.10.0-46-cloud-amd64       1       0     0      1.2  ok
6.1     5.10.0-46-cloud-amd64       1       1     0      1.2  1 failed
6.12    5.10.0-46-cloud-amd64       1       0     1      1.2  ok

6.1: see target/vm/logs/6.1.log
  failed: a::b (root)

6.12: kept waiting, as by a slow host (1): see target/vm/logs/6.12.log
";
        let mut slow = outcome("6.12", None);
        slow.transcript.line("[    7.745688] hrtimer: interrupt took 9255450 ns");
        assert_eq!(table(&[outcome("5.10", None), outcome("6.1", Some("1 failed")), slow]), expected);
    }

    #[test]
    fn kernels_are_counted_as_passed_or_failed() {
        let outcomes = [outcome("5.10", None), outcome("6.1", Some("1 failed"))];
        assert_eq!(counts(&outcomes), (1, 1));
        let report = json(&outcomes, Accelerator::Tcg).expect("it is JSON");
        assert!(
            report.contains(r#""accelerator": "tcg""#) && report.contains(r#""a::b (root)""#),
            "{report}"
        );
    }
}
