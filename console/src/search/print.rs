//! Prints what is found. Nothing of it reaches a terminal unescaped.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use weir_common::session::{ChannelNo, SessionId};

use super::{
    pattern::Shown,
    session::{Line, Report},
};
use crate::{
    cli::{Place, SearchArgs},
    escape,
    find::About,
    look::Look,
    run::{Exit, World},
};

/// How often the progress is shown anew.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Takes the reports in their order.
pub(super) struct Printer<'a, 'w> {
    args: &'a SearchArgs,
    world: &'a mut World<'w>,
    last: Option<(SessionId, Option<Arc<str>>)>,
    found: bool,
    failed: bool,
    done: usize,
    /// When progress was last shown, while a line of it stands there.
    shown: Option<Instant>,
}

/// A line as programs read it.
#[derive(Serialize)]
struct Json<'a> {
    session: SessionId,
    user: &'a str,
    resource: &'a str,
    request_id: &'a str,
    started_at: Timestamp,
    kind: &'static str,
    #[serde(rename = "in")]
    place: &'static str,
    at: Option<Timestamp>,
    t: u64,
    channel: ChannelNo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pane: Option<&'a str>,
    command: Option<&'a str>,
    line: &'a str,
    /// Bytes of `line`.
    matches: Vec<[usize; 2]>,
    /// Whether the line begins before and goes on behind what is here.
    cut: [bool; 2],
}

impl<'a, 'w> Printer<'a, 'w> {
    pub(super) fn new(args: &'a SearchArgs, world: &'a mut World<'w>) -> Self {
        Self { args, world, last: None, found: false, failed: false, done: 0, shown: None }
    }

    pub(super) fn take(&mut self, report: Report, listed: usize) -> io::Result<()> {
        match report {
            Report::Line(line) => {
                self.found |= line.is_match;
                self.clear();
                match (self.args.json, self.world.terminal) {
                    (true, _) => self.json(&line),
                    (false, true) => self.grouped(&line),
                    (false, false) => self.columns(&line),
                }?;
            }
            Report::Warning(about, warning) => {
                self.complain(&format!("{}: {warning}", about.meta.session_id));
            }
            Report::Unreadable(problem) => self.complain(&problem),
            Report::Done => {
                self.done += 1;
                self.progress(listed);
            }
        }
        Ok(())
    }

    /// What the exit code has to say.
    pub(super) fn finish(mut self) -> Exit {
        self.clear();
        match self {
            Self { failed: true, .. } => Exit::Failed,
            Self { found: true, .. } => Exit::Fine,
            _ => Exit::Wrong,
        }
    }

    fn complain(&mut self, problem: &str) {
        self.failed = true;
        self.clear();
        // Where even standard error is closed, the exit code has to say it.
        let _ = writeln!(self.world.err, "weir: {}", escape::text(problem));
    }

    fn progress(&mut self, listed: usize) {
        if !self.args.progress || self.shown.is_some_and(|shown| shown.elapsed() < PROGRESS_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        // What has been found should be there before it.
        let _ = self.world.out.flush();
        let _ = write!(self.world.err, "\r\x1b[K{} of {listed} sessions searched", self.done);
        let _ = self.world.err.flush();
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(self.world.err, "\r\x1b[K");
        }
    }

    /// For people: a heading for each session and each command.
    fn grouped(&mut self, line: &Line) -> io::Result<()> {
        let (out, look) = (&mut *self.world.out, self.world.look);
        let id = line.about.meta.session_id;
        let is_new = self.last.as_ref().is_none_or(|(last, _)| *last != id);
        if is_new {
            let gap = if self.last.is_some() { "\n" } else { "" };
            let heading = format!("{id}  {}  {}", time(Some(line.about.opened_at)), whose(&line.about));
            writeln!(out, "{gap}{}", look.heading(&heading))?;
        }
        let is_other = self.last.as_ref().is_none_or(|(_, command)| *command != line.command);
        if let Some(command) = line.command.as_ref().filter(|_| is_new || is_other)
            && line.place != Place::Commands
        {
            let sign = if line.place == Place::Files { "" } else { "$ " };
            writeln!(out, "  {}", look.faint(&format!("{sign}{}", escape::text(command))))?;
        }
        self.last = Some((id, line.command.clone()));
        let sign = if line.place == Place::Commands { "$ " } else { "" };
        let at = line.at.map_or_else(String::new, |at| at.strftime("%H:%M:%S").to_string());
        let mark = if line.is_match { " " } else { "-" };
        writeln!(out, "    {}{mark} {sign}{}", look.faint(&at), text(&line.shown, look))
    }

    /// For tools: columns with a tab between them.
    fn columns(&mut self, line: &Line) -> io::Result<()> {
        let (id, mark) = (line.about.meta.session_id, if line.is_match { "" } else { "-" });
        let command = line.command.as_deref().unwrap_or_default();
        writeln!(
            self.world.out,
            "{id}\t{}\t{}\t{mark}{}\t{}\t{}",
            time(line.at),
            whose(&line.about),
            place(line.place),
            escape::text(command),
            text(&line.shown, Look::default())
        )
    }

    fn json(&mut self, line: &Line) -> io::Result<()> {
        let Line { about, place: found, is_match, at, t, ch, pane, command, shown, .. } = line;
        let json = Json {
            session: about.meta.session_id,
            user: &about.meta.user,
            resource: &about.meta.resource.name,
            request_id: &about.meta.request_id,
            started_at: about.opened_at,
            kind: if *is_match { "match" } else { "context" },
            place: place(*found),
            at: *at,
            t: *t,
            channel: *ch,
            pane: pane.as_deref(),
            command: command.as_deref(),
            line: &shown.text,
            matches: shown.matches.iter().map(|range| [range.start, range.end]).collect(),
            cut: shown.cut,
        };
        let json = serde_json::to_string(&json)?;
        writeln!(self.world.out, "{}", escape::json(&json))
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Commands => "command",
        Place::Output => "output",
        Place::Input => "input",
        Place::Files => "file",
        Place::All => "all",
    }
}

fn whose(about: &About) -> String {
    let meta = &about.meta;
    format!("{}@{}", escape::text(&meta.user), escape::text(&meta.resource.name))
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// The text, escaped, with what was found in it marked.
fn text(shown: &Shown, look: Look) -> String {
    let Shown { text, matches, cut: [before, after] } = shown;
    let mut out = String::from(if *before { "…" } else { "" });
    let mut at = 0;
    for found in matches {
        out += &escape::text(&text[at..found.start]).to_string();
        out += &look.found(&escape::text(&text[found.clone()]).to_string());
        at = found.end;
    }
    out += &escape::text(&text[at..]).to_string();
    out + if *after { "…" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_within_and_around_what_was_found() {
        let text_of = |raw: &str, matches| {
            text(&Shown { text: raw.into(), matches, cut: [true, true] }, Look::default())
        };
        assert_eq!(
            text_of("\x1b]0;x\x07\r\n\u{9b}2J\u{202e}", vec![0..5, 6..8]),
            "…\\x1b]0;x\\x07\\r\\n\\u{9b}2J\\u{202e}…"
        );
    }
}
