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

mod ahead;
mod marked;
mod reading;

use std::collections::VecDeque;

use weir_common::recording::findings::{Source, Span};

use self::reading::{is_expansion, is_flush};
use super::{
    commands::{Commands, Entered, Place, Whose},
    entry::{Entry, Read},
    grammar,
    grid::{Grid, Pos},
    interpreters::Starts,
    keys::{Key, Keys},
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
    /// Where the cursor was at Enter.
    entered: Pos,
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
    /// Whether Warp's hooks told of this prompt, and will tell what is run.
    hooked: bool,
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
            hooked: false,
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
                    if entry.sure {
                        // Right prompts are drawn last.
                        entry.note_right(grid);
                    } else {
                        entry.settle(grid, commands);
                        let is_blank = entry.prompt.as_deref().is_none_or(|prompt| prompt.trim().is_empty());
                        if is_blank && !entry.plain && !entry.marked {
                            // It was not drawn yet.
                            (entry.ahead, entry.pos) = (true, None);
                        }
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

    /// What is left of the cursor is a prompt, if it looks like one here.
    fn plain_entry(&self, key: Key, grid: &dyn Grid) -> Option<Entry> {
        let mut entry = self.new_entry(grid);
        entry.plain = true;
        entry.ahead = false;
        entry.settle(grid, &self.commands);
        let cursor = grid.cursor();
        let drawn = grid.row(cursor.row)?.before(cursor.col);
        if let (Some(lead), Some(prompt)) = (self.typed_before(key), &mut entry.prompt) {
            if lead.starts_with(prompt.as_str()) {
                // It is the echo of what is typed, and no prompt.
                return None;
            }
            if let Some(rest) = prompt.strip_prefix(lead.as_str()) {
                *prompt = rest.to_owned();
            }
            let echo = drawn.strip_suffix(prompt.as_str()).unwrap_or("");
            entry.lead = !echo.is_empty() && lead.starts_with(echo);
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
            hooked: self.hooked,
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
            if let Some(entry) = self.entry.as_mut().filter(|entry| entry.marked && !entry.typed) {
                entry.plain = false;
                // zsh, which draws its right prompt behind the mark.
                self.prompt_first = true;
                entry.note_right(grid);
                self.rights |= entry.right.is_some();
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
        // Looked for only where it is needed: a long line takes a while.
        let line = self.history.as_ref().map(|_| grid.line_start(grid.cursor().row));
        if let Some(line) = line
            && let Some((text, _)) = self.history.take_if(|(_, row)| line >= *row)
        {
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
        let edited = self.seen_editor && self.commands.started() == Starts::Nothing;
        if self.entry.is_none() && !self.editor && !edited {
            self.commands.prompted(place);
        }
        self.look_for_echo(grid);
        self.left(place, grid, false, transcript, out);
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
        let goes_on = !self.parts.is_empty();
        if read.text.trim().is_empty() && !continues && !goes_on {
            return;
        }
        let only_comments =
            |text: &str| text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
        if !continues && !goes_on && self.commands.is_shell() && only_comments(&read.text) {
            return;
        }
        transcript.command(read.row);
        if entry.marked || entry.hooked || goes_on {
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
            return self.enter_each(entry, &read, place, out);
        }
        if self.commands.is_told() {
            return;
        }
        if read.text.contains('!') || read.text.starts_with('^') {
            self.history = Some((read.text.clone(), end + 1));
        }
        let text = read.text.clone();
        self.commands.enter(entered(entry, &read, text, entry.adjacent, place), out);
    }

    /// bash takes several lines at once for as many commands, unless one goes on in the next.
    fn enter_each(&mut self, entry: &Entry, read: &Read, place: Place, out: &mut dyn Findings) {
        let mut adjacent = entry.adjacent;
        for text in grammar::commands(&read.text) {
            let adjacent = std::mem::take(&mut adjacent);
            self.commands.enter(entered(entry, read, text, adjacent, place), out);
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

/// What was read of an entry, or one of several commands in it.
fn entered(entry: &Entry, read: &Read, text: String, adjacent: bool, place: Place) -> Entered {
    Entered {
        text,
        prompt: read.prompt.clone(),
        adjacent,
        source: Source::Screen,
        confidence: read.confidence,
        pasted: entry.pasted,
        from: entry.from,
        run: place,
        enter: entry.enter,
    }
}
