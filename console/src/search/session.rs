//! One session: its events become lines, lines that match become reports, and each gets the command that it belongs to.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use weir_analysis::{Analysis, Findings, TranscriptLine, masking::LineState};
use weir_common::{
    frame::Direction,
    recording::{
        Content, Event, What,
        findings::{Command, FileAccess, Forward, Source},
    },
    session::ChannelNo,
};

use super::{
    Options,
    lines::{LINE_MAX, Lines, Part},
    pattern::Shown,
    stored,
};
use crate::{
    cli::Place,
    find::About,
    parallel::{Results, Stopped},
    recording::{Item, Recording, content_bytes},
    store::SessionDir,
};

/// The most channels that are followed side by side.
const CHANNELS_MAX: usize = 1000;
/// The most lines that wait for the command that they belong to.
const WAITING_MAX: usize = 1000;
/// The most commands that are over and remembered, for lines that scroll away later.
const OVER_MAX: usize = 1000;
/// The most bytes of a line before a match.
const BEFORE_BYTES: usize = 4 << 10;
/// The most characters of a command.
const COMMAND_CHARS: usize = 500;
/// The most warnings of a session.
const WARNINGS_MAX: usize = 20;

/// What there is to print.
pub(super) enum Report {
    /// A line.
    Line(Box<Line>),
    /// Something in a session does not fit together.
    Warning(Arc<About>, String),
    /// A session can't be read, or not listed.
    Unreadable(String),
    /// A session is done with.
    Done,
}

/// A line that matched, or stands by one that did.
pub(super) struct Line {
    /// Whose session it is in.
    pub(super) about: Arc<About>,
    /// Where in the session.
    pub(super) place: Place,
    /// Whether it matched.
    pub(super) is_match: bool,
    /// When it began: the calendar's time.
    pub(super) at: Option<Timestamp>,
    /// The kernel's.
    pub(super) t: u64,
    /// On which channel.
    pub(super) ch: ChannelNo,
    /// In which pane of tmux or screen.
    pub(super) pane: Option<String>,
    /// Which command it belongs to; of a file, what was done to it.
    pub(super) command: Option<Arc<str>>,
    /// What it says.
    pub(super) shown: Shown,
    /// Whether a command was entered on it.
    is_entry: bool,
}

/// A line before it is known whether anybody wants it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    stream: Stream<'a>,
    part: Part<'a>,
    command: Belongs<'a>,
    is_entry: bool,
    /// What lines before have begun; none where the line stands for itself, or is masked already.
    masks: Option<&'a LineState>,
}

/// A command on a terminal that is over.
struct Over {
    ch: ChannelNo,
    pane: Option<String>,
    t: u64,
    t_end: Option<u64>,
    text: Arc<str>,
    /// Whether it was reported as a match itself.
    is_found: bool,
}

/// Lines with the same are neighbours.
#[derive(Clone, Copy)]
struct Stream<'a> {
    place: Place,
    ch: ChannelNo,
    pane: Option<&'a str>,
    is_error: bool,
}

type StreamKey = (Place, ChannelNo, Option<String>, bool);

/// Which command a line belongs to.
#[derive(Clone, Copy)]
enum Belongs<'a> {
    To(Option<&'a Arc<str>>),
    /// The one that was running then, which is not known before it ends.
    Waits,
}

/// The lines around the next match of a stream.
#[derive(Default)]
struct Around {
    before: VecDeque<Before>,
    after: usize,
}

/// A line that is shown if there is a match behind it.
struct Before {
    t: u64,
    bytes: Vec<u8>,
    is_entry: bool,
    masks: Option<LineState>,
}

/// What a channel is for.
#[derive(Default)]
struct Channel {
    has_terminal: bool,
    /// A shell or a command runs.
    runs: bool,
    command: Option<Arc<str>>,
    /// Standard input, output and error.
    lines: [(Lines, LineState); 3],
    closed: [bool; 2],
}

/// Searches one session.
pub(super) fn search(
    session: SessionDir,
    about: About,
    options: &Options,
    results: &Results<Report>,
) -> Result<(), Stopped> {
    let recording = match Recording::open_unchecked(session) {
        Ok(recording) => recording,
        Err(error) => return results.give(Report::Unreadable(error.to_string())),
    };
    let mut search = Search::new(Arc::new(about), options, results);
    recording.warnings.iter().for_each(|warning| search.warn(warning.clone()));
    if !stored::search(&recording, &mut search) {
        search.events(&recording);
    }
    search.stopped
}

/// A search of one session under way.
pub(super) struct Search<'a> {
    about: Arc<About>,
    pub(super) options: &'a Options,
    results: &'a Results<Report>,
    channels: BTreeMap<ChannelNo, Channel>,
    streams: BTreeMap<StreamKey, Around>,
    waiting: VecDeque<Line>,
    over: VecDeque<Over>,
    matches: usize,
    warnings: usize,
    stopped: Result<(), Stopped>,
}

impl<'a> Search<'a> {
    fn new(about: Arc<About>, options: &'a Options, results: &'a Results<Report>) -> Self {
        Self {
            about,
            options,
            results,
            channels: BTreeMap::new(),
            streams: BTreeMap::new(),
            waiting: VecDeque::new(),
            over: VecDeque::new(),
            matches: 0,
            warnings: 0,
            stopped: Ok(()),
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings += 1;
        if self.warnings <= WARNINGS_MAX {
            self.give(Report::Warning(Arc::clone(&self.about), warning));
        }
    }

    /// Whether nothing more is wanted of this session.
    pub(super) fn is_over(&self) -> bool {
        self.stopped.is_err() || self.matches >= self.options.matches_max
    }

    fn events(&mut self, recording: &Recording) {
        let mut analysis = Analysis::new(Some(self.about.clock), self.options.masking.clone());
        for item in recording.events() {
            match item {
                Item::Warning(warning) => self.warn(warning),
                Item::Event(event, bulk) => {
                    let content = event.what.content().map(|content| content_bytes(content, bulk.as_deref()));
                    let content = content.unwrap_or_default();
                    self.before(&event, content);
                    analysis.event(&event, content, self);
                    self.behind(&event);
                }
            }
            if self.is_over() {
                break;
            }
        }
        analysis.finish(self);
        for ch in self.channels.keys().copied().collect::<Vec<_>>() {
            self.end(ch);
        }
        while let Some(line) = self.waiting.pop_front() {
            self.give(Report::Line(Box::new(line)));
        }
    }

    /// What an event says, and the lines of what has no terminal.
    fn before(&mut self, event: &Event, content: &[u8]) {
        if self.channels.len() >= CHANNELS_MAX && !self.channels.contains_key(&event.ch) {
            return;
        }
        let channel = self.channels.entry(event.ch).or_default();
        match &event.what {
            What::Pty(_) => {
                channel.has_terminal = true;
                channel.lines[0].0 = Lines::new(true);
            }
            What::Shell => channel.runs = true,
            What::Exec(_) => {
                channel.runs = true;
                let command = self.options.masked(content, None);
                let command: Arc<str> = command.chars().take(COMMAND_CHARS).collect::<String>().into();
                channel.command = Some(Arc::clone(&command));
                if self.options.looks_in(Place::Commands) {
                    let stream = Stream::of(Place::Commands, event.ch);
                    let part = Part { t: event.t, bytes: &content[..content.len().min(LINE_MAX)], seen: 0 };
                    self.see(Seen::of(stream, part, Belongs::To(Some(&command))));
                }
            }
            What::Stdin(data) => self.data(event, data, content, 0),
            What::Stdout(data) => self.data(event, data, content, 1),
            What::Stderr(data) => self.data(event, data, content, 2),
            _ => {}
        }
    }

    fn data(&mut self, event: &Event, data: &Content, content: &[u8], stream: usize) {
        let place = if stream == 0 { Place::Input } else { Place::Output };
        let Some(channel) = self.channels.get_mut(&event.ch) else { return };
        // What a terminal showed comes from the analysis, and files are no text.
        let is_shown = channel.has_terminal && stream > 0;
        if !self.options.looks_in(place) || !channel.runs || is_shown || matches!(data, Content::Withheld(_))
        {
            return;
        }
        let (mut lines, mut masks) = std::mem::take(&mut channel.lines[stream]);
        let command = channel.command.clone();
        let of = Stream { is_error: stream == 2, ..Stream::of(place, event.ch) };
        lines.push(event.t, content, |part| self.text(of, part, command.as_ref(), &mut masks));
        if let Some(channel) = self.channels.get_mut(&event.ch) {
            channel.lines[stream] = (lines, masks);
        }
    }

    /// After the analysis had its say.
    fn behind(&mut self, event: &Event) {
        let Some(channel) = self.channels.get_mut(&event.ch) else { return };
        match event.what {
            What::Close => channel.closed[usize::from(event.dir == Direction::TargetToClient)] = true,
            What::OpenFailure(_) => channel.closed = [true; 2],
            _ => {}
        }
        if channel.closed == [true; 2] {
            self.end(event.ch);
        }
    }

    fn end(&mut self, ch: ChannelNo) {
        let Some(channel) = self.channels.remove(&ch) else { return };
        for (stream, (mut lines, mut masks)) in channel.lines.into_iter().enumerate() {
            let place = if stream == 0 { Place::Input } else { Place::Output };
            let of = Stream { is_error: stream == 2, ..Stream::of(place, ch) };
            lines.end(|part| self.text(of, part, channel.command.as_ref(), &mut masks));
        }
        self.streams.retain(|(_, of, _, _), _| *of != ch);
    }

    /// A line of what has no terminal, behind those that `masks` remembers.
    fn text(&mut self, of: Stream<'_>, part: Part<'_>, command: Option<&Arc<str>>, masks: &mut LineState) {
        self.see(Seen { masks: Some(&*masks), ..Seen::of(of, part, Belongs::To(command)) });
        self.options.masking.pass_line(masks, part.bytes);
    }

    /// Looks at a line.
    fn see(&mut self, seen: Seen<'_>) {
        let Part { t, bytes, seen: again } = seen.part;
        let matched = !self.is_over() && self.options.pattern.is_in(bytes, again);
        if self.options.context == 0 {
            if let Some(line) = matched.then(|| self.make(seen, true)).filter(|line| line.is_match) {
                self.matches += 1;
                self.say(line, seen.command);
            }
            return;
        }
        let line = matched.then(|| self.make(seen, true)).filter(|line| line.is_match);
        let mut around = self.streams.remove(&seen.stream.key()).unwrap_or_default();
        if let Some(line) = line {
            self.matches += 1;
            for Before { t, bytes, is_entry, masks } in std::mem::take(&mut around.before) {
                let part = Part { t, bytes: &bytes, seen: 0 };
                let before = self.make(Seen { part, is_entry, masks: masks.as_ref(), ..seen }, false);
                self.say(before, seen.command);
            }
            self.say(line, seen.command);
            around.after = self.options.context;
        } else if around.after > 0 {
            around.after -= 1;
            let line = self.make(seen, false);
            self.say(line, seen.command);
        } else {
            if around.before.len() == self.options.context {
                around.before.pop_front();
            }
            let bytes = bytes[..bytes.len().min(BEFORE_BYTES)].to_vec();
            let Seen { is_entry, masks, .. } = seen;
            around.before.push_back(Before { t, bytes, is_entry, masks: masks.cloned() });
        }
        if self.streams.len() < CHANNELS_MAX {
            self.streams.insert(seen.stream.key(), around);
        }
    }

    fn make(&self, seen: Seen<'_>, is_match: bool) -> Line {
        let Seen { stream: Stream { place, ch, pane, is_error: _ }, part, command, is_entry, masks } = seen;
        let Part { t, bytes, seen: _ } = part;
        let text = self.options.masked(bytes, masks);
        let mut shown = self.options.pattern.show(&text);
        // A secret can't be found out by looking for it.
        let is_match = is_match && self.options.pattern.is_in(text.as_bytes(), 0);
        if !is_match {
            shown.matches.clear();
        }
        Line {
            about: Arc::clone(&self.about),
            place,
            is_match,
            at: self.about.clock.at(t),
            t,
            ch,
            pane: pane.map(str::to_owned),
            command: match command {
                Belongs::To(command) => command.cloned(),
                Belongs::Waits => None,
            },
            shown,
            is_entry,
        }
    }

    fn say(&mut self, line: Line, command: Belongs<'_>) {
        match command {
            Belongs::To(_) => self.give(Report::Line(Box::new(line))),
            Belongs::Waits => {
                if self.waiting.len() == WAITING_MAX
                    && let Some(first) = self.waiting.pop_front()
                {
                    self.give(Report::Line(Box::new(first)));
                }
                self.waiting.push_back(line);
            }
        }
    }

    fn give(&mut self, report: Report) {
        if self.stopped.is_ok() {
            self.stopped = self.results.give(report);
        }
    }

    /// Gives the lines that were waiting for this command, and those before it that no other can claim any more.
    fn settle(&mut self, command: &Command, is_found: bool) {
        let text: Arc<str> = command.text.chars().take(COMMAND_CHARS).collect::<String>().into();
        if command.source != Source::Exec {
            if self.over.len() == OVER_MAX {
                self.over.pop_front();
            }
            self.over.push_back(Over {
                ch: command.ch,
                pane: command.pane.clone(),
                t: command.span.t,
                t_end: command.span.t_end,
                text: Arc::clone(&text),
                is_found,
            });
        }
        for mut line in std::mem::take(&mut self.waiting) {
            let is_its = line.ch == command.ch && line.pane == command.pane;
            if !is_its || command.span.t_end.is_some_and(|end| line.t > end) {
                self.waiting.push_back(line);
                continue;
            }
            if line.is_entry && is_found && line.is_match {
                // The command has been reported as such.
                continue;
            }
            if line.t >= command.span.t || line.is_entry {
                line.command = Some(Arc::clone(&text));
            }
            self.give(Report::Line(Box::new(line)));
        }
    }
}

impl Over {
    /// Whether this line of a terminal, which came out later, is the command's.
    fn has(&self, line: &TranscriptLine) -> bool {
        let is_its_time = if line.is_command {
            // It was begun with the prompt.
            self.t >= line.t
        } else {
            self.t <= line.t && self.t_end.is_none_or(|end| line.t <= end)
        };
        is_its_time && self.ch == line.ch && self.pane == line.pane
    }
}

impl<'a> Seen<'a> {
    /// A line that stands for itself.
    fn of(stream: Stream<'a>, part: Part<'a>, command: Belongs<'a>) -> Self {
        Self { stream, part, command, is_entry: false, masks: None }
    }
}

impl Stream<'_> {
    fn of(place: Place, ch: ChannelNo) -> Self {
        Self { place, ch, pane: None, is_error: false }
    }

    fn key(&self) -> StreamKey {
        (self.place, self.ch, self.pane.map(str::to_owned), self.is_error)
    }
}

impl Findings for Search<'_> {
    fn command(&mut self, command: Command) {
        let mut is_found = false;
        // Those that were asked for have been looked at when they were, unless they come from the store.
        if self.options.looks_in(Place::Commands)
            && (command.source != Source::Exec || !self.channels.contains_key(&command.ch))
        {
            let before = self.matches;
            let text: Arc<str> = command.text.chars().take(COMMAND_CHARS).collect::<String>().into();
            let stream = Stream { pane: command.pane.as_deref(), ..Stream::of(Place::Commands, command.ch) };
            let bytes = command.text.as_bytes();
            let part = Part { t: command.span.t, bytes: &bytes[..bytes.len().min(LINE_MAX)], seen: 0 };
            self.see(Seen::of(stream, part, Belongs::To(Some(&text))));
            is_found = self.matches > before;
        }
        self.settle(&command, is_found);
    }

    fn file(&mut self, file: FileAccess) {
        if !self.options.looks_in(Place::Files) {
            return;
        }
        let what: Arc<str> = format!("{:?} {:?}", file.protocol, file.operation).to_lowercase().into();
        let text = match &file.other_path {
            Some(other) => format!("{} -> {other}", file.path),
            None => file.path,
        };
        let part = Part { t: file.span.t, bytes: &text.as_bytes()[..text.len().min(LINE_MAX)], seen: 0 };
        let stream = Stream::of(Place::Files, file.ch);
        self.see(Seen::of(stream, part, Belongs::To(Some(&what))));
    }

    fn forward(&mut self, _: Forward) {}

    fn line(&mut self, line: TranscriptLine) {
        if !self.options.looks_in(Place::Output) {
            return;
        }
        let asked_for = self.channels.get(&line.ch).and_then(|channel| channel.command.clone());
        if line.is_command && asked_for.as_deref() == Some(line.text.as_str()) {
            // The heading over what an exec request's command printed; the command has been looked at.
            return;
        }
        let stream = Stream { pane: line.pane.as_deref(), ..Stream::of(Place::Output, line.ch) };
        let bytes = line.text.as_bytes();
        let part = Part { t: line.t, bytes: &bytes[..bytes.len().min(LINE_MAX)], seen: 0 };
        let over = self.over.iter().find(|over| over.has(&line));
        if over.is_some_and(|over| line.is_command && over.is_found)
            && self.options.pattern.is_in(part.bytes, 0)
        {
            return;
        }
        let command = over.map(|over| Arc::clone(&over.text)).or(asked_for);
        let command = match &command {
            Some(command) => Belongs::To(Some(command)),
            None => Belongs::Waits,
        };
        self.see(Seen { is_entry: line.is_command, ..Seen::of(stream, part, command) });
    }
}
