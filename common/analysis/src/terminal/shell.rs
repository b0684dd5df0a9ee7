//! Tells what is entered at prompts from what else happens on a screen.
//!
//! Three kinds of signs, the better ones first:
//! - Marks (OSC 133 and the like) say where an entry begins and that it runs. A prompt that comes without them, as
//!   after `ssh` or `su`, is taken by the other signs; marks count again as soon as there are some.
//! - A line editor switches bracketed paste on while it waits and off when it took the line: then the line stands on
//!   the screen as it is run.
//! - Otherwise a prompt is what looks like one or is known, where something is typed; the line is read when a line
//!   feed follows Enter. Lines that were typed before such a prompt was drawn stand above it, and count as run when
//!   the prompt is left without a key.
//!
//! What is typed where nothing is echoed is never kept: everything but type-ahead is read off the screen, and
//! type-ahead counts only once its echo was seen.

use std::collections::VecDeque;

use weir_common::recording::findings::{Confidence, Source, Span};

use super::{
    commands::{Commands, Entered, Place, Whose},
    entry::{Entry, Read},
    grammar::is_incomplete,
    grid::{Grid, Pos},
    interpreters::Starts,
    keys::{Key, Keys},
    marks::Mark,
    prompt::{PROMPT_CHARS_MAX, is_promptish},
    transcript::Transcript,
};
use crate::{At, Findings};

/// The most lines that are typed ahead.
const TYPED_MAX: usize = 256;
/// After so many pieces of output without an echo, a typed line is taken for a secret and forgotten.
const ECHO_EVENTS_MAX: u32 = 4;
/// Input of so many bytes at once, with a line end in it, was pasted.
const PASTED_BYTES_MIN: usize = 24;
/// A shell takes what was typed ahead at once; this long after the prompt, nothing is left of it (nanoseconds).
const IDLE_NS: u64 = 100_000_000;
/// The most rows up in which an echo is looked for.
const ECHO_ROWS_MAX: u64 = 100;

/// A line that was typed where no prompt was.
struct Typed {
    text: String,
    row: u64,
    seen: bool,
    events: u32,
    pasted: bool,
}

/// A part of a command that marks have not yet said to run.
struct Part {
    read: Read,
    from: Place,
    enter: Option<At>,
    pasted: bool,
}

/// Follows one screen.
pub(super) struct Shell {
    pub(super) commands: Commands,
    keys: Keys,
    /// Whether a line editor waits.
    editor: bool,
    seen_editor: bool,
    /// Whether the editor draws its prompt before it says that it waits, as zsh does.
    prompt_first: bool,
    rights: bool,
    entry: Option<Entry>,
    enders: VecDeque<Key>,
    typed: VecDeque<Typed>,
    /// Whether anything was typed since the last line was taken.
    ahead: bool,
    /// Row on which the last output began, and where it was.
    settled: Place,
    /// Where the cursor was when the last line was taken.
    taken: Option<Pos>,
    /// How many prompts of a row were left, see [`Self::left`].
    left: (u64, usize),
    parts: Vec<Part>,
    line: Option<(String, Source)>,
    runs_are_marked: bool,
    /// Whether what is on the screen was found to hold no prompt.
    refused: bool,
    /// A command with history expansion whose result is to be printed next.
    history: Option<(String, u64)>,
}

impl Shell {
    pub(super) fn new(commands: Commands) -> Self {
        Self {
            commands,
            keys: Keys::new(),
            editor: false,
            seen_editor: false,
            prompt_first: false,
            rights: false,
            entry: None,
            enders: VecDeque::new(),
            typed: VecDeque::new(),
            ahead: false,
            settled: Place::default(),
            taken: None,
            left: (0, 0),
            parts: Vec::new(),
            line: None,
            runs_are_marked: false,
            refused: false,
            history: None,
        }
    }

    /// Whether line feeds matter now.
    pub(super) fn wants_lines(&self) -> bool {
        !self.typed.is_empty()
            || self.history.is_some()
            || self.entry.as_ref().is_some_and(|entry| entry.plain && entry.enter.is_some())
    }

    /// Whether a command is being entered, so that what scrolls away has to be kept.
    pub(super) fn is_entering(&self) -> bool {
        self.entry.is_some()
    }

    /// Places that a resize moves.
    pub(super) fn places(&mut self) -> Vec<&mut Pos> {
        if let Some(entry) = &mut self.entry {
            entry.resized = true;
        }
        let entry =
            self.entry.iter_mut().flat_map(|entry| std::iter::once(&mut entry.start).chain(&mut entry.pos));
        entry.chain(&mut self.taken).collect()
    }

    /// What the user typed. `shown` is false while a program has the whole screen.
    pub(super) fn input(&mut self, at: At, bytes: &[u8], grid: &dyn Grid, shown: bool) {
        let ends = |b: &u8| matches!(b, b'\r' | b'\n');
        let inner = bytes.iter().position(ends).is_some_and(|end| bytes[end + 1..].iter().any(|b| !ends(b)));
        let at_once = inner || (bytes.len() >= PASTED_BYTES_MIN && bytes.iter().any(ends));
        for byte in bytes {
            let Some(key) = self.keys.byte(*byte) else { continue };
            let pasted = at_once || self.keys.pasting;
            if shown {
                self.key(key, at, pasted, grid);
            } else {
                self.keys.take_line();
            }
        }
    }

    fn key(&mut self, key: Key, at: At, pasted: bool, grid: &dyn Grid) {
        if self.entry.is_none() && !self.editor && !self.refused {
            self.entry = self.plain_entry(key, grid);
            self.refused = self.entry.is_none();
        }
        if self.entry.is_none() {
            self.ahead = true;
        }
        let Self { entry, keys, commands, .. } = self;
        match entry {
            Some(entry) if entry.enter.is_none() || !entry.plain => {
                // A shell that waited this long has no more of what was typed before.
                let idle = at.t.saturating_sub(self.settled.at.t) >= IDLE_NS;
                entry.ahead &= !idle || !entry.drawn;
                if !entry.typed && !entry.ahead {
                    if !entry.sure {
                        entry.settle(grid, commands);
                    }
                    if idle {
                        self.typed.clear();
                    }
                    self.rights |= entry.right.is_some();
                }
                entry.typed = true;
                entry.pasted |= pasted;
                match key {
                    Key::Enter => {
                        entry.enter = Some(at);
                        if entry.plain {
                            entry.line = keys.take_line();
                        } else {
                            self.push_typed(pasted, grid);
                        }
                    }
                    Key::Interrupt if entry.plain => {
                        let prompt = entry.prompt.as_deref().unwrap_or("");
                        if self.commands.whose(prompt, entry.adjacent) == Whose::Continues {
                            self.commands.abandon();
                        }
                        self.entry = None;
                    }
                    _ => {}
                }
            }
            _ if key == Key::Enter => self.push_typed(pasted, grid),
            _ => {}
        }
        if matches!(key, Key::Enter | Key::Interrupt | Key::End) {
            if key == Key::Interrupt {
                self.enders.clear();
                self.typed.clear();
            } else if matches!(self.enders.back(), Some(Key::Interrupt | Key::End)) {
                // The line editor went on without giving the line back, as fish does.
                self.enders.pop_back();
            }
            if self.enders.len() < TYPED_MAX {
                self.enders.push_back(key);
            }
        }
    }

    fn push_typed(&mut self, pasted: bool, grid: &dyn Grid) {
        let text = self.keys.take_line();
        if self.typed.len() == TYPED_MAX {
            self.typed.pop_front();
        }
        if let Some(text) = text {
            let row = self.typed.back().map_or_else(|| grid.cursor().row, |typed| typed.row);
            self.typed.push_back(Typed { text, row, seen: false, events: 0, pasted });
        }
    }

    /// What is left of the cursor is a prompt, if it looks like one here.
    fn plain_entry(&self, key: Key, grid: &dyn Grid) -> Option<Entry> {
        let mut entry = self.new_entry(grid);
        entry.plain = true;
        entry.ahead = false;
        entry.settle(grid, &self.commands);
        let lead = self.typed_before(key);
        entry.lead = lead.is_some();
        if let (Some(lead), Some(prompt)) = (&lead, &entry.prompt) {
            if lead.starts_with(prompt.as_str()) {
                // It is the echo of what is typed, and no prompt.
                return None;
            }
            if let Some(rest) = prompt.strip_prefix(lead.as_str()) {
                entry.prompt = Some(rest.to_owned());
            }
        }
        let prompt = entry.prompt.as_deref()?;
        if prompt.trim().is_empty() || prompt.chars().count() > PROMPT_CHARS_MAX {
            return None;
        }
        let is_prompt = match self.commands.whose(prompt, entry.adjacent) {
            Whose::Known(_) | Whose::Continues => true,
            Whose::Inner(Some(name)) if name != "?" => true,
            Whose::Inner(None) => is_promptish(prompt),
            Whose::Inner(Some(_)) => is_promptish(prompt) && !self.seen_editor,
            Whose::Changed if self.seen_editor && self.commands.running().is_some() => false,
            Whose::Changed if self.commands.is_fresh() => {
                is_promptish(prompt) || !prompt.trim_end().ends_with(':')
            }
            Whose::Changed => is_promptish(prompt),
        };
        is_prompt.then_some(entry)
    }

    /// What was typed of this line before this key.
    fn typed_before(&self, key: Key) -> Option<String> {
        let mut line = self.keys.line()?;
        if key == Key::Other {
            line.pop();
        }
        (!line.is_empty()).then_some(line)
    }

    fn new_entry(&self, grid: &dyn Grid) -> Entry {
        let cursor = grid.cursor();
        Entry {
            start: cursor,
            pos: None,
            sure: false,
            prompt: None,
            right: None,
            ahead: self.ahead,
            marked: false,
            plain: false,
            typed: false,
            drawn: false,
            resized: false,
            line: None,
            lead: false,
            pasted: false,
            adjacent: self.taken.is_some_and(|taken| cursor.row <= taken.row + 1),
            from: self.settled,
            enter: None,
        }
    }

    /// A line editor begins or ceases to wait.
    pub(super) fn waits(
        &mut self,
        waits: bool,
        place: Place,
        grid: &dyn Grid,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        self.editor = waits;
        self.history = None;
        if waits {
            self.seen_editor = true;
            if self.entry.as_ref().is_some_and(|entry| entry.marked && !entry.typed) {
                return;
            }
            let mut entry = self.new_entry(grid);
            entry.from = place;
            // zsh says so when its prompt stands there.
            entry.settle(grid, &self.commands);
            let prompt = entry.prompt.as_deref().unwrap_or("");
            entry.sure = self.commands.knows(prompt) || (self.prompt_first && !prompt.trim().is_empty());
            self.rights |= entry.sure && entry.right.is_some();
            if !entry.sure && entry.ahead {
                entry.pos = None;
            }
            self.entry = Some(entry);
            self.commands.prompted(place);
        } else {
            let mut ender = self.enders.pop_front();
            if ender == Some(Key::End) && self.enders.contains(&Key::Enter) {
                // It ended something else: at a prompt, nothing would follow it.
                while self.enders.pop_front() != Some(Key::Enter) {}
                ender = Some(Key::Enter);
            }
            let entry = self.entry.take();
            self.ahead = !self.enders.is_empty();
            if let Some(entry) = entry.filter(|entry| !entry.plain) {
                self.accept(&entry, ender == Some(Key::Enter), place, grid, transcript, out);
            }
            self.taken = Some(grid.cursor());
            self.left = (grid.cursor().row, usize::MAX);
        }
    }

    /// A line feed is about to be obeyed.
    pub(super) fn line_feed(
        &mut self,
        place: Place,
        grid: &dyn Grid,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        if let Some(entry) = self.entry.take_if(|entry| entry.plain && entry.enter.is_some()) {
            self.accept(&entry, true, place, grid, transcript, out);
            self.enders.clear();
            let cursor = grid.cursor();
            self.taken = Some(Pos { row: cursor.row + 1, col: 0 });
            self.left = (cursor.row, usize::MAX);
            return;
        }
        let line = grid.line_start(grid.cursor().row);
        if let Some((text, _)) = self.history.take_if(|(_, row)| line >= *row) {
            let rows = line..=grid.cursor().row;
            let printed: String =
                rows.filter_map(|row| grid.row(row)).map(|row| row.before(usize::MAX)).collect();
            let printed = printed.trim_end();
            if is_expansion(&text, printed) {
                self.commands.expanded(printed.to_owned());
            }
        }
        if self.typed.iter().any(|typed| !typed.seen) {
            let text = grid.row(grid.cursor().row).map(|row| row.text()).unwrap_or_default();
            let echoed =
                self.typed.iter_mut().find(|typed| !typed.seen && text.ends_with(typed.text.as_str()));
            if let Some(typed) = echoed {
                typed.seen = true;
                self.left = (grid.cursor().row, usize::MAX);
            }
        }
        self.left(place, grid, true, transcript, out);
    }

    /// A piece of output is over.
    pub(super) fn output_end(
        &mut self,
        place: Place,
        grid: &dyn Grid,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        if let Some(entry) = self.entry.as_mut().filter(|entry| !entry.plain && !entry.typed) {
            if !entry.ahead && !entry.marked {
                let before = entry.pos;
                entry.settle(grid, &self.commands);
                if entry.prompt.as_deref().is_some_and(|prompt| !prompt.trim().is_empty()) {
                    let first = before == entry.pos;
                    self.prompt_first =
                        first && (self.prompt_first || before != Some(entry.start) || entry.start.col > 0);
                }
            } else if !entry.sure {
                entry.settle(grid, &self.commands);
                entry.sure |= entry.prompt.as_deref().is_some_and(|prompt| self.commands.knows(prompt));
            }
            entry.drawn = true;
        }
        self.settled = place;
        self.refused = false;
        if self.entry.is_none() && !self.editor {
            self.commands.prompted(place);
        }
        self.look_for_echo(grid);
        self.left(place, grid, false, transcript, out);
    }

    fn look_for_echo(&mut self, grid: &dyn Grid) {
        let last = grid.cursor().row;
        for typed in self.typed.iter_mut().filter(|typed| !typed.seen) {
            let first = typed.row.max(last.saturating_sub(ECHO_ROWS_MAX));
            let mut text = String::new();
            for row in first..=last {
                text.push_str(&grid.row(row).map(|row| row.before(usize::MAX)).unwrap_or_default());
            }
            typed.seen = typed.text.is_empty() || text.contains(typed.text.as_str());
            typed.events += 1;
        }
        self.typed.retain(|typed| typed.seen || typed.events < ECHO_EVENTS_MAX);
    }

    /// Prompts that were drawn and left without a key took lines that were typed before. A row may hold several: a
    /// command that prints nothing leaves its prompt where the next one is drawn.
    fn left(
        &mut self,
        place: Place,
        grid: &dyn Grid,
        is_over: bool,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        let edited = self.seen_editor && self.commands.started() == Starts::Nothing;
        if self.editor || edited || self.entry.is_some() || !self.typed.iter().any(|typed| typed.seen) {
            return;
        }
        let number = grid.cursor().row;
        let Some(row) = grid.row(number) else { return };
        let text = row.before(usize::MAX);
        let mut rest = text.as_str();
        let mut prompts = Vec::new();
        while let Some(prompt) = self.commands.known_prefix(rest) {
            prompts.push(prompt.to_owned());
            rest = &rest[prompt.len()..];
        }
        let mut left = prompts.len();
        if !is_over && rest.trim().is_empty() {
            left = left.saturating_sub(1);
        }
        let done = if self.left.0 == number { self.left.1 } else { 0 };
        for prompt in prompts.into_iter().take(left).skip(done) {
            let Some(typed) = self.typed.pop_front() else { break };
            if typed.text.trim().is_empty() || !typed.seen {
                continue;
            }
            transcript.command(number);
            let entered = Entered {
                text: typed.text,
                prompt,
                adjacent: self.commands.is_incomplete(),
                source: Source::Screen,
                confidence: Confidence::Low,
                pasted: typed.pasted,
                from: place,
                run: place,
                enter: None,
            };
            self.commands.prompted(place);
            self.commands.enter(entered, out);
        }
        self.left = (number, left.max(done));
    }

    /// The line was taken: it is run, unless something else ended it.
    fn accept(
        &mut self,
        entry: &Entry,
        enter: bool,
        place: Place,
        grid: &dyn Grid,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        let expected = match entry.plain {
            true => entry.line.clone(),
            false => self.typed.pop_front().map(|typed| typed.text),
        };
        let mut end = grid.cursor().row;
        let is_blank = |row: u64| grid.row(row).is_none_or(|row| row.text().is_empty());
        if !entry.plain && grid.cursor().col == 0 && is_blank(end) {
            end = end.saturating_sub(1);
        }
        while grid.row(end).is_some_and(|row| row.wrapped) && grid.row(end + 1).is_some() {
            end += 1;
        }
        let read = entry.read(grid, end, &self.commands, expected.as_deref(), self.rights);
        let Some(read) = read else { return };
        let continues =
            self.commands.whose(&read.prompt, entry.adjacent) == Whose::Continues && !read.prompt.is_empty();
        if !enter {
            if continues && !entry.marked {
                self.commands.abandon();
            }
            self.parts.clear();
            return;
        }
        if read.text.trim().is_empty() && !continues {
            return;
        }
        let only_comments =
            |text: &str| text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
        if !continues && self.commands.is_shell() && only_comments(&read.text) {
            return;
        }
        transcript.command(read.row);
        if entry.marked {
            self.parts.push(Part { read, from: entry.from, enter: entry.enter, pasted: entry.pasted });
            if self.parts.len() == TYPED_MAX {
                self.parts.remove(0);
            }
            return;
        }
        // Its echo came between the prompts, and it is what was typed.
        let typed =
            entry.ahead && read.prompt.trim().is_empty() && expected.as_deref() == Some(read.text.as_str());
        if !entry.plain && !typed && !self.commands_may_come_from(entry, &read) {
            return;
        }
        if !entry.plain
            && !self.prompt_first
            && !read.set_in
            && self.commands.is_shell()
            && is_flush(&read.text)
        {
            return self.enter_each(entry, read, place, out);
        }
        if read.text.contains('!') || read.text.starts_with('^') {
            self.history = Some((read.text.clone(), end + 1));
        }
        let entered = Entered {
            text: read.text,
            prompt: read.prompt,
            adjacent: entry.adjacent,
            source: Source::Screen,
            confidence: read.confidence,
            pasted: entry.pasted,
            from: entry.from,
            run: place,
            enter: entry.enter,
        };
        self.commands.enter(entered, out);
    }

    /// bash takes several lines at once for as many commands, unless one goes on in the next.
    fn enter_each(&mut self, entry: &Entry, read: Read, place: Place, out: &mut dyn Findings) {
        let mut adjacent = entry.adjacent;
        let mut text = String::new();
        let mut lines = read.text.lines().peekable();
        while let Some(line) = lines.next() {
            text.push_str(line);
            if is_incomplete(&text) && lines.peek().is_some() {
                text.push('\n');
                continue;
            }
            let text = std::mem::take(&mut text);
            if text.trim().is_empty() || text.trim_start().starts_with('#') {
                continue;
            }
            let entered = Entered {
                text,
                prompt: read.prompt.clone(),
                adjacent: std::mem::take(&mut adjacent),
                source: Source::Screen,
                confidence: read.confidence,
                pasted: entry.pasted,
                from: entry.from,
                run: place,
                enter: entry.enter,
            };
            self.commands.enter(entered, out);
        }
    }

    /// Whether a line editor's prompt is one for commands: programs ask for other things with the same editor.
    fn commands_may_come_from(&self, entry: &Entry, read: &Read) -> bool {
        if self.commands.running().is_none() || self.commands.started() != Starts::Nothing {
            return true;
        }
        match self.commands.whose(&read.prompt, entry.adjacent) {
            Whose::Known(_) | Whose::Continues => true,
            Whose::Inner(Some(name)) => name != "?" || is_promptish(&read.prompt),
            Whose::Inner(None) | Whose::Changed => is_promptish(&read.prompt),
        }
    }

    /// Marks in the output.
    pub(super) fn mark(
        &mut self,
        mark: Mark,
        place: Place,
        grid: &dyn Grid,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        match mark {
            Mark::Prompt { continues } => {
                if !continues {
                    if !self.runs_are_marked {
                        self.run(None, Source::Osc133, place, grid, out);
                    }
                    self.parts.clear();
                    self.line = None;
                    self.commands.prompted(place);
                }
            }
            Mark::Entry => {
                let mut entry = self.new_entry(grid);
                entry.settle(grid, &self.commands);
                (entry.sure, entry.marked, entry.plain) = (true, true, !self.editor);
                if let Some(waiting) = &self.entry {
                    (entry.typed, entry.pasted, entry.enter) = (waiting.typed, waiting.pasted, waiting.enter);
                }
                entry.from = place;
                self.entry = Some(entry);
            }
            Mark::CommandLine(text) => self.line = Some((text, Source::Osc633)),
            Mark::Run(text) => {
                self.runs_are_marked = true;
                if let Some(entry) = self.entry.take_if(|entry| entry.marked) {
                    self.accept(&entry, true, place, grid, transcript, out);
                }
                if let Some(text) = text {
                    self.line = Some((text, Source::Osc133));
                }
                self.run(None, Source::Osc133, place, grid, out);
            }
            Mark::Done(code) => self.commands.done(code, place, out),
            Mark::Cwd(cwd) => self.commands.set_cwd(cwd),
            Mark::WarpRun(text) => self.run(Some(text), Source::WarpDcs, place, grid, out),
            Mark::WarpDone(code) => self.commands.done(code, place, out),
            Mark::WarpPrompt { exit_code, cwd } => {
                self.commands.done(exit_code, place, out);
                self.commands.prompted(place);
                if let Some(cwd) = cwd {
                    self.commands.set_cwd(cwd);
                }
            }
        }
    }

    /// Marks say that a command runs: what they tell, or what stood on the screen.
    fn run(
        &mut self,
        text: Option<String>,
        source: Source,
        place: Place,
        grid: &dyn Grid,
        out: &mut dyn Findings,
    ) {
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        let first = parts.next();
        let told = text.map(|text| (text, source)).or_else(|| self.line.take());
        let (mut pasted, mut enter, mut prompt, mut from) = (false, None, String::new(), self.settled);
        let mut confidence = Confidence::High;
        let mut seen = String::new();
        if let Some(part) = first {
            (prompt, seen, from) = (part.read.prompt, part.read.text, part.from);
            (pasted, enter) = (part.pasted, part.enter);
            confidence = part.read.confidence;
        }
        for part in parts {
            seen.push('\n');
            seen.push_str(&part.read.text);
            pasted |= part.pasted;
            enter = part.enter.or(enter);
            confidence = confidence.max(part.read.confidence);
        }
        let (text, source, confidence) = match told {
            Some((text, source)) => (text, source, Confidence::Exact),
            None => (seen, source, confidence),
        };
        if text.trim().is_empty() {
            return;
        }
        let entered =
            Entered { text, prompt, adjacent: false, source, confidence, pasted, from, run: place, enter };
        self.commands.enter(entered, out);
        self.taken = Some(grid.cursor());
        self.typed.clear();
    }

    /// A program had the whole screen.
    pub(super) fn full_screen(&mut self, span: Span) {
        self.commands.full_screen(span);
    }

    /// What is missing may have changed anything.
    pub(super) fn gap(&mut self) {
        self.entry = None;
        self.typed.clear();
        self.parts.clear();
    }
}

/// Whether further lines begin at the left, where bash lets them begin and fish does not.
fn is_flush(text: &str) -> bool {
    text.lines().skip(1).any(|line| !line.is_empty() && !line.starts_with(' '))
}

/// Whether a shell may have printed this for a command with history expansion (`!!`, `!$`, `!ssh`).
fn is_expansion(command: &str, printed: &str) -> bool {
    if command.starts_with('^') {
        return command.matches('^').count() >= 2 && !printed.is_empty() && !printed.contains(": ");
    }
    let Some(at) = command.find('!') else { return false };
    let (before, rest) = command.split_at(at);
    if before.matches('\'').count() % 2 == 1 || printed == command || printed.is_empty() {
        return false;
    }
    let rest = &rest[1..];
    let end = match rest.chars().next() {
        Some(c @ ('!' | '$' | '^' | '*' | '#')) => c.len_utf8(),
        Some('a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '?' | ':') => {
            rest.find([' ', ';', '"', '|']).unwrap_or(rest.len())
        }
        _ => return false,
    };
    let behind = &rest[end..];
    // Further expansions in what follows are not looked at.
    let behind = behind.split('!').next_back().filter(|_| !behind.contains('!')).unwrap_or("");
    printed.len() >= before.len() + behind.len() && printed.starts_with(before) && printed.ends_with(behind)
}
