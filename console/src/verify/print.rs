//! Writes a report for people, or as JSON.
//!
//! Everything that comes from the recording is escaped here.

use std::{
    io::{self, Write},
    path::Path,
};

use weir_common::recording::{SIGNATURE, SIGNATURE_NAMESPACE, SUMS, segment_name, signature_name};

use super::report::{Check, Finding, Report, Summary, Unfinished, Verdict};
use crate::{
    escape,
    look::{Look, Mark},
    table,
};

/// What a reviewer needs to repeat the check without Weir.
#[derive(Clone, Copy, Debug)]
pub struct ByHand<'a> {
    /// The file of allowed signers, if there is one.
    pub signers: Option<&'a Path>,
    /// As whom the signer must be listed.
    pub identity: &'a str,
}

/// One line with the report as a JSON object.
///
/// # Errors
/// If it can't be written.
pub fn json(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", escape::json(&serde_json::to_string(report)?))
}

/// The report for people, the verdict in its last line.
///
/// # Errors
/// If it can't be written.
pub fn text(report: &Report, by_hand: &ByHand<'_>, look: Look, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", look.heading(&escape::text(&report.directory).to_string()))?;
    if let Some(summary) = &report.session {
        writeln!(out, "  {}", escape::text(&summary_line(summary)))?;
    }
    for result in &report.checks {
        let name = result.check.as_str();
        let unknown = result.check == Check::Signature && report.verdict == Verdict::SignerUnknown;
        let (mark, detail) = match result.findings {
            0 if unknown || !result.complete => (Mark::Open, result.detail.clone()),
            0 => (Mark::Good, result.detail.clone()),
            1 => (Mark::Bad, "1 finding".to_owned()),
            n => (Mark::Bad, format!("{n} findings")),
        };
        writeln!(out, "  {}  {name:<10}  {}", look.mark(mark), escape::text(&detail))?;
        let shown = report.findings.iter().filter(|finding| finding.check == result.check);
        let mut left_out = result.findings;
        for finding in shown {
            left_out -= 1;
            writeln!(out, "          {}", escape::text(&finding_line(finding)))?;
        }
        if left_out > 0 {
            writeln!(out, "          … and {left_out} more")?;
        }
    }
    if report.gaps.gaps > 0 && report.verdict != Verdict::NotIntact {
        writeln!(out, "  {}  {}", look.mark(Mark::Open), escape::text(&unrecorded(report)))?;
    }
    if report.withheld.bytes > 0 && report.verdict != Verdict::NotIntact {
        writeln!(out, "  {}  {}", look.mark(Mark::Open), withheld(report))?;
    }
    for note in &report.notes {
        writeln!(out, "  note  {}", escape::text(note))?;
    }
    write_by_hand(report, by_hand, out)?;
    verdict(report, look, out)
}

/// The verdict line.
///
/// # Errors
/// If it can't be written.
pub fn verdict(report: &Report, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let directory = escape::text(&report.directory).to_string();
    let findings: u64 = report.checks.iter().map(|result| result.findings).sum();
    let (mark, verdict, detail) = match report.verdict {
        Verdict::Intact if report.gaps.gaps > 0 => {
            (Mark::Open, "INTACT, WITH GAPS", format!("verified, but {}", left_out(report).join(", and ")))
        }
        Verdict::Intact if report.withheld.bytes > 0 => {
            (Mark::Open, "INTACT, file content not recorded (by grant)", left_out(report).join(", and "))
        }
        Verdict::Intact => (
            Mark::Good,
            "INTACT",
            "nothing is missing, nothing was altered, the signer is allowed".to_owned(),
        ),
        Verdict::Unfinished => (Mark::Open, "UNFINISHED", so_far(report)),
        Verdict::SignerUnknown if report.unfinished.is_some() => (
            Mark::Open,
            "SIGNER NOT KNOWN",
            format!("anyone could have signed it, pass --allowed-signers; {}", so_far(report)),
        ),
        Verdict::SignerUnknown => (
            Mark::Open,
            "SIGNER NOT KNOWN",
            format!(
                "consistent in itself, but {}; pass --allowed-signers",
                [vec!["anyone could have signed it".to_owned()], left_out(report)].concat().join(", and ")
            ),
        ),
        Verdict::NotIntact if findings == 1 => (Mark::Bad, "NOT INTACT", "1 finding".to_owned()),
        Verdict::NotIntact => (Mark::Bad, "NOT INTACT", format!("{findings} findings")),
    };
    writeln!(out, "{} {directory}: {detail}", look.verdict(mark, verdict))
}

/// How far a session without an end is verified.
fn so_far(report: &Report) -> String {
    let Some(Unfinished { segments, until }) = report.unfinished else { return String::new() };
    let until = until.map_or_else(String::new, |until| {
        format!(", which ends at {} UTC", until.strftime("%Y-%m-%d %H:%M:%S"))
    });
    format!(
        "verified up to segment {segments}{until}; the session is under way or its end is not in the store"
    )
}

/// The gaps, and that they may be there. Those that may not are findings.
fn unrecorded(report: &Report) -> String {
    format!("{} passed unrecorded, as the grant's capture policy permits", report.gaps)
}

/// The file content that is not there, and that it need not be.
fn withheld(report: &Report) -> String {
    format!("{} are not recorded, as the grant says; their sizes and digests are", report.withheld)
}

/// What of the session is not in the recording, though nothing is wrong with that.
fn left_out(report: &Report) -> Vec<String> {
    let gaps = (report.gaps.gaps > 0).then(|| unrecorded(report));
    let withheld = (report.withheld.bytes > 0).then(|| withheld(report));
    gaps.into_iter().chain(withheld).collect()
}

fn summary_line(summary: &Summary) -> String {
    let Summary { session, opened_at, closed_at, outcome } = summary;
    let (resource, id) = (&session.resource, session.session_id);
    let end = match (closed_at, outcome) {
        (Some(closed_at), Some(outcome)) => format!("{}, {outcome}", table::duration(*opened_at, *closed_at)),
        _ => "no end yet".to_owned(),
    };
    format!(
        "session {id}: {} on {} ({}@{}:{}), {} UTC, {end}",
        session.user,
        resource.name,
        session.target_login,
        resource.host,
        resource.port,
        opened_at.strftime("%Y-%m-%d %H:%M:%S"),
    )
}

fn finding_line(finding: &Finding) -> String {
    let Finding { check: _, place, problem } = finding;
    let mut words = Vec::new();
    words.extend(place.object.clone());
    words.extend(place.line.map(|line| format!("line {line}")));
    words.extend(place.channel.map(|channel| format!("channel {channel}")));
    words.extend(place.direction.map(|direction| direction.to_string()));
    words.extend(place.seq.map(|seq| format!("frame {seq}")));
    format!("{}: {problem}", words.join(" "))
}

fn write_by_hand(report: &Report, by_hand: &ByHand<'_>, out: &mut dyn Write) -> io::Result<()> {
    let quoted = |text: &str| escape::text(&shell_word(text)).to_string();
    let identity = quoted(by_hand.identity);
    if let (Verdict::SignerUnknown, Some(signer)) = (report.verdict, &report.signer) {
        writeln!(out, "  The recording is signed by the key {}.", escape::text(&signer.fingerprint))?;
        writeln!(
            out,
            "  Ask who runs the agent whether that is its key; the recording can't tell you. If it is, put"
        )?;
        writeln!(out, "  this line into a file and pass it with --allowed-signers FILE:")?;
        writeln!(out, "    {}", escape::text(&signer.allowed_signers_line))?;
    }
    let signers = by_hand.signers.map(|path| quoted(&path.display().to_string()));
    writeln!(out, "  Without Weir:")?;
    writeln!(out, "    cd {}", quoted(&report.directory))?;
    if let Some(Unfinished { segments, .. }) = report.unfinished {
        let (signature, segment) = (signature_name(segments), segment_name(segments));
        return writeln!(
            out,
            "    ssh-keygen -Y verify -f {} -I {identity} -n {SIGNATURE_NAMESPACE} -s {signature} < {segment}",
            signers.as_deref().unwrap_or("ALLOWED_SIGNERS"),
        );
    }
    writeln!(out, "    sha256sum -c {SUMS}")?;
    writeln!(
        out,
        "    ssh-keygen -Y verify -f {} -I {identity} -n {SIGNATURE_NAMESPACE} -s {SIGNATURE} < {SUMS}",
        signers.as_deref().unwrap_or("ALLOWED_SIGNERS"),
    )
}

/// The text as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_or_a_quote_is_one_word_for_the_shell() {
        assert_eq!(shell_word("/a/dt=2026-01-02/x"), "/a/dt=2026-01-02/x");
        assert_eq!(shell_word("/a b/it's"), r"'/a b/it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
