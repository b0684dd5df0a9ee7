//! Writes commands, files and forwards for people.

use std::io::{self, Write};

use jiff::Timestamp;
use weir_common::recording::findings::{
    Command, FileAccess, FileOperation, FileResult, Forward, Span, Transferred,
};

use crate::{
    export::csv::word,
    findings::{Kept, Origin},
    look::Look,
    table::{Align, Table, grouped},
};

/// The characters of a digest that tell it from others here; `--json` has it all.
const DIGEST_CHARS: usize = 12;

pub(super) fn text(kept: &Kept, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let Kept { findings_from, commands, files, forwards, findings_left_out } = kept;
    let from = match findings_from {
        Origin::Stored => "as the agent stored them",
        Origin::Made => "made from the events just now",
    };
    if !commands.is_empty() {
        writeln!(out, "\nCommands, {from}:")?;
        command_table(commands).write(out, |line| look.heading(line))?;
    }
    if !files.is_empty() {
        writeln!(out, "\nFiles, {from}:")?;
        file_table(files).write(out, |line| look.heading(line))?;
    }
    if !forwards.is_empty() {
        writeln!(out, "\nForwards, {from}:")?;
        forward_table(forwards).write(out, |line| look.heading(line))?;
    }
    if *findings_left_out > 0 {
        writeln!(out, "… and {} more; `weir export --format csv` has them all", grouped(*findings_left_out))?;
    }
    Ok(())
}

fn command_table(commands: &[Command]) -> Table {
    let mut table = Table::new([
        ("NO", Align::Right),
        ("TIME (UTC)", Align::Left),
        ("TOOK", Align::Right),
        ("EXIT", Align::Right),
        ("COMMAND", Align::Left),
    ]);
    for command in commands {
        let exit = command.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
        let inside = command.repl.as_ref().map(|repl| format!("{repl}: ")).unwrap_or_default();
        let text = format!("{inside}{}", command.text);
        table.row([command.n.to_string(), time(command.span.started_at), took(&command.span), exit, text]);
    }
    table
}

fn file_table(files: &[FileAccess]) -> Table {
    let mut table = Table::new([
        ("NO", Align::Right),
        ("TIME (UTC)", Align::Left),
        ("WHAT", Align::Left),
        ("BYTES", Align::Right),
        ("SHA-256", Align::Left),
        ("RESULT", Align::Left),
        ("PATH", Align::Left),
    ]);
    for file in files {
        let FileAccess {
            n, span, protocol, operation, path, other_path, result, mode, read, written, ..
        } = file;
        let what = match (operation, read, written) {
            (FileOperation::Open | FileOperation::Transfer, Some(_), None) => "read".to_owned(),
            (FileOperation::Open | FileOperation::Transfer, None, Some(_)) => "write".to_owned(),
            (FileOperation::Open | FileOperation::Transfer, Some(_), Some(_)) => "read, write".to_owned(),
            (FileOperation::SetAttributes, ..) if mode.is_some() => {
                format!("chmod {:04o}", mode.unwrap_or_default())
            }
            _ => word(operation).replace('_', " "),
        };
        let each = |show: &dyn Fn(&Transferred) -> String| {
            let shown: Vec<_> = [read, written].into_iter().flatten().map(show).collect();
            if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
        };
        let bytes = each(&|data| grouped(data.bytes));
        let digest = each(&|data| data.sha256.to_string().chars().take(DIGEST_CHARS).collect());
        let result = match result {
            FileResult::Ok => "ok".to_owned(),
            FileResult::Failed(why) => format!("failed: {why}"),
            FileResult::Unknown => "not known".to_owned(),
            FileResult::Unfollowed(why) => format!("not followed: {why}"),
        };
        let path = match other_path {
            Some(other) => format!("{path} → {other}"),
            None => path.clone(),
        };
        let what = format!("{} {what}", word(protocol));
        table.row([n.to_string(), time(span.started_at), what, bytes, digest, result, path]);
    }
    table
}

fn forward_table(forwards: &[Forward]) -> Table {
    let mut table = Table::new([
        ("NO", Align::Right),
        ("TIME (UTC)", Align::Left),
        ("TOOK", Align::Right),
        ("KIND", Align::Left),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("FROM", Align::Left),
        ("TO", Align::Left),
    ]);
    for forward in forwards {
        let Forward { n, ch: _, span, kind, from, to, refused, sent, received } = forward;
        let to = match refused {
            Some(why) => format!("{to}, refused: {why}"),
            None => to.clone(),
        };
        table.row([
            n.to_string(),
            time(span.started_at),
            took(span),
            word(kind).replace('_', " "),
            grouped(*sent),
            grouped(*received),
            from.clone().unwrap_or_else(|| "-".to_owned()),
            to,
        ]);
    }
    table
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How long it took; `-` where its end was not seen.
fn took(span: &Span) -> String {
    let Some(end) = span.t_end else { return "-".to_owned() };
    let ms = end.saturating_sub(span.t) / 1_000_000;
    match ms / 1000 {
        seconds @ 0..60 => format!("{seconds}.{:03} s", ms % 1000),
        seconds => format!("{}:{:02} min", seconds / 60, seconds % 60),
    }
}
