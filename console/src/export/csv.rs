//! Writes findings as CSV (RFC 4180): commands, files or forwards, a line each.
//!
//! Spreadsheets take a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return for a formula, and what
//! begins a cell was chosen by whoever was watched. Such a cell gets an apostrophe in front. Control characters are
//! spelled out, line feeds apart.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;
use weir_analysis::{Findings, TranscriptLine};
use weir_common::recording::findings::{Command, FileAccess, FileResult, Forward, Span, Transferred};

use crate::{cli::Table, escape};

/// Writes one table as its findings come.
pub struct Csv<'a> {
    out: &'a mut dyn Write,
    table: Table,
    failed: Option<io::Error>,
}

impl<'a> Csv<'a> {
    /// Writes the headings.
    pub fn new(table: Table, out: &'a mut dyn Write) -> Self {
        let mut csv = Self { out, table, failed: None };
        let headings: &[&str] = match table {
            Table::Commands => &[
                "number",
                "channel",
                "started_at",
                "ended_at",
                "seconds",
                "exit_code",
                "command",
                "source",
                "confidence",
                "pasted",
                "masked",
                "directory",
                "interpreter",
                "pane",
                "first_seq",
                "last_seq",
            ],
            Table::Files => &[
                "number",
                "channel",
                "started_at",
                "ended_at",
                "protocol",
                "operation",
                "path",
                "other_path",
                "result",
                "reason",
                "mode",
                "read_bytes",
                "read_sha256",
                "written_bytes",
                "written_sha256",
            ],
            Table::Forwards => &[
                "number",
                "channel",
                "started_at",
                "ended_at",
                "seconds",
                "kind",
                "from",
                "to",
                "refused",
                "sent_bytes",
                "received_bytes",
            ],
        };
        csv.row(headings.iter().map(|heading| (*heading).to_owned()));
        csv
    }

    /// Whether all could be written.
    ///
    /// # Errors
    /// If not.
    pub fn finish(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        if self.failed.is_some() {
            return;
        }
        let cells: Vec<_> = cells.into_iter().map(|text| cell(&text)).collect();
        self.failed = write!(self.out, "{}\r\n", cells.join(",")).err();
    }
}

impl Findings for Csv<'_> {
    fn command(&mut self, command: Command) {
        if self.table != Table::Commands {
            return;
        }
        let Command { n, ch, span, text, source, confidence, exit_code, pasted, masked, .. } = command;
        let Command { cwd, repl, pane, full_screen: _, evidence, .. } = command;
        self.row([
            n.to_string(),
            ch.to_string(),
            time(span.started_at),
            time(span.ended_at),
            seconds(&span),
            or_empty(exit_code),
            text,
            word(&source),
            word(&confidence),
            pasted.to_string(),
            masked.to_string(),
            cwd.unwrap_or_default(),
            repl.unwrap_or_default(),
            pane.unwrap_or_default(),
            evidence.first_seq.to_string(),
            evidence.last_seq.to_string(),
        ]);
    }

    fn file(&mut self, file: FileAccess) {
        if self.table != Table::Files {
            return;
        }
        let FileAccess { n, ch, span, protocol, operation, path, other_path, result, mode, read, written } =
            file;
        let (result, reason) = match result {
            FileResult::Ok => ("ok", String::new()),
            FileResult::Failed(reason) => ("failed", reason),
            FileResult::Unknown => ("unknown", String::new()),
            FileResult::Unfollowed(reason) => ("unfollowed", reason),
        };
        let bytes = |data: Option<Transferred>| or_empty(data.map(|data| data.bytes));
        let digest = |data: Option<Transferred>| or_empty(data.map(|data| data.sha256));
        self.row([
            n.to_string(),
            ch.to_string(),
            time(span.started_at),
            time(span.ended_at),
            word(&protocol),
            word(&operation),
            path,
            other_path.unwrap_or_default(),
            result.to_owned(),
            reason,
            mode.map(|mode| format!("{mode:04o}")).unwrap_or_default(),
            bytes(read),
            digest(read),
            bytes(written),
            digest(written),
        ]);
    }

    fn forward(&mut self, forward: Forward) {
        if self.table != Table::Forwards {
            return;
        }
        let Forward { n, ch, span, kind, from, to, refused, sent, received } = forward;
        self.row([
            n.to_string(),
            ch.to_string(),
            time(span.started_at),
            time(span.ended_at),
            seconds(&span),
            word(&kind),
            from.unwrap_or_default(),
            to,
            refused.unwrap_or_default(),
            sent.to_string(),
            received.to_string(),
        ]);
    }

    fn line(&mut self, _: TranscriptLine) {}
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()).unwrap_or_default()
}

fn seconds(span: &Span) -> String {
    let ms = span.t_end.map(|end| end.saturating_sub(span.t) / 1_000_000);
    ms.map(|ms| format!("{}.{:03}", ms / 1000, ms % 1000)).unwrap_or_default()
}

/// The word that stands for it in JSON.
pub(crate) fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// A text as a cell.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        out.push('\'');
    }
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            c if escape::is_unsafe(c) => out.push_str(&escape::text(c.encode_utf8(&mut [0; 4])).to_string()),
            c => out.push(c),
        }
    }
    if out.contains(['"', ',', '\n']) { format!("\"{}\"", out.replace('"', "\"\"")) } else { out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_are_quoted_where_they_have_to_be() {
        assert_eq!(cell("ls -l"), "ls -l");
        assert_eq!(cell("echo \"a,b\""), "\"echo \"\"a,b\"\"\"");
        assert_eq!(cell("cat <<E\nx\nE"), "\"cat <<E\nx\nE\"");
        assert_eq!(cell("a\x1b[31m\r"), "a\\x1b[31m\\r");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for hostile in ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert!(cell(hostile).trim_start_matches('"').starts_with('\''), "{hostile:?}");
        }
    }

    proptest! {
        #[test]
        fn a_cell_holds_one_cell(text in "[ -~\n\"',=äß\x1b]{0,30}") {
            let cell = cell(&text);
            prop_assert!(!cell.chars().any(|c| c != '\n' && escape::is_unsafe(c)));
            let inner = cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"'));
            match inner {
                Some(inner) => prop_assert!(!inner.replace("\"\"", "").contains('"')),
                None => prop_assert!(!cell.contains(['"', ',', '\n'])),
            }
        }
    }
}
