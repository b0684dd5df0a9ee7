//! tmux and GNU screen: what they draw is cut along their borders, and each pane is followed by itself.
//!
//! A multiplexer draws what its panes hold however it likes, so a pane is a part of the screen as it looks after each
//! piece of output; its rows have no numbers that stay. A line is taken when Enter was pressed at a prompt in the pane
//! with the cursor, and is looked for by the prompt in front of it, wherever in the pane it stands by then.
//!
//! The screen is cut only while a multiplexer runs, and only where keys are pressed or waited for.

use std::collections::VecDeque;

use weir_common::{
    recording::findings::{Confidence, Source},
    session::ChannelNo,
};

use super::{
    commands::{Commands, Entered, Place, Whose},
    emulator::Emulator,
    keys::{Key, Keys},
    prompt::is_promptish,
};
use crate::{At, Findings};

/// The most panes that are told apart.
const PANES_MAX: usize = 64;
/// The most lines that wait to be found on the screen.
const WAITING_MAX: usize = 64;
/// After so many pieces of output a line that was not found is taken as it stood when Enter was pressed.
const EVENTS_MAX: u32 = 6;

/// A part of the screen, from inclusive to exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Area {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

/// A line for which Enter was pressed.
struct Waiting {
    prompt: String,
    /// What stood behind the prompt then.
    seen: String,
    /// What was typed, where only that makes the line.
    typed: Option<String>,
    enter: At,
    from: Place,
    pasted: bool,
    events: u32,
}

struct Pane {
    window: String,
    area: Area,
    commands: Commands,
    /// The prompt behind which a line is being entered.
    prompt: Option<String>,
    from: Place,
    waiting: VecDeque<Waiting>,
}

/// Follows the panes of a multiplexer.
pub(super) struct Panes {
    ch: ChannelNo,
    keys: Keys,
    /// The key with which the multiplexer is spoken to.
    prefix: u8,
    prefixed: bool,
    panes: Vec<Pane>,
}

impl Panes {
    pub(super) fn new(ch: ChannelNo, is_screen: bool) -> Self {
        let prefix = if is_screen { 0x01 } else { 0x02 };
        Self { ch, keys: Keys::new(), prefix, prefixed: false, panes: Vec::new() }
    }

    /// What the user typed.
    pub(super) fn input(&mut self, place: Place, bytes: &[u8], screen: &Emulator) {
        let mut current = None;
        let inner = bytes.iter().rposition(|b| !matches!(b, b'\r' | b'\n'));
        let at_once = inner.is_some_and(|last| bytes[..last].iter().any(|b| matches!(b, b'\r' | b'\n')));
        for byte in bytes {
            if std::mem::take(&mut self.prefixed) {
                continue;
            }
            if *byte == self.prefix {
                self.prefixed = true;
                continue;
            }
            let Some(key) = self.keys.byte(*byte) else { continue };
            let at = match current {
                Some(at) => at,
                None => match self.pane(screen) {
                    Some(at) => *current.insert(at),
                    None => return,
                },
            };
            let pasted = at_once || self.keys.pasting;
            self.key(at, key, place, pasted, screen);
        }
    }

    fn key(&mut self, at: usize, key: Key, place: Place, pasted: bool, screen: &Emulator) {
        let Self { keys, panes, .. } = self;
        let Some(pane) = panes.get_mut(at) else { return };
        if pane.prompt.is_none() && pane.waiting.is_empty() {
            pane.prompt = pane.prompt_here(screen);
            pane.from = place;
        }
        match key {
            Key::Enter => {
                let typed = keys.take_line();
                let last = pane.waiting.back().map(|waiting| waiting.prompt.clone());
                let Some(prompt) = pane.prompt.take().or(last) else { return };
                let seen = pane.behind(&prompt, screen).unwrap_or_default();
                if pane.waiting.len() < WAITING_MAX {
                    let from = pane.from;
                    pane.waiting.push_back(Waiting {
                        prompt,
                        seen,
                        typed,
                        enter: place.at,
                        from,
                        pasted,
                        events: 0,
                    });
                }
            }
            Key::Interrupt => {
                keys.take_line();
                pane.prompt = None;
                pane.waiting.clear();
            }
            _ => {}
        }
    }

    /// A piece of output is over, or a line feed or the end of a line editor's waiting is about to be drawn over.
    pub(super) fn drawn(&mut self, place: Place, screen: &Emulator, is_over: bool, out: &mut dyn Findings) {
        for pane in self.panes.iter_mut().filter(|pane| !pane.waiting.is_empty()) {
            let lines = pane.lines(screen);
            while let Some(mut waiting) = pane.waiting.pop_front() {
                let found = waiting.find(&lines);
                let late = waiting.events >= EVENTS_MAX;
                let (text, confidence) = match found {
                    Some(text) => (text, Confidence::High),
                    None if late => (waiting.seen.clone(), Confidence::Low),
                    None => {
                        waiting.events += u32::from(is_over);
                        pane.waiting.push_front(waiting);
                        break;
                    }
                };
                let text = text.trim();
                let is_more = pane.commands.whose(&waiting.prompt, true) == Whose::Continues;
                if (text.is_empty() || text.starts_with('#')) && !is_more {
                    continue;
                }
                let entered = Entered {
                    text: text.to_owned(),
                    prompt: waiting.prompt,
                    adjacent: true,
                    source: Source::Screen,
                    confidence,
                    pasted: waiting.pasted,
                    from: waiting.from,
                    run: place,
                    enter: Some(waiting.enter),
                };
                pane.commands.prompted(waiting.from);
                pane.commands.enter(entered, out);
            }
        }
    }

    /// The pane with the cursor.
    fn pane(&mut self, screen: &Emulator) -> Option<usize> {
        let area = area_of_cursor(screen)?;
        let window = window(screen);
        let same = |pane: &Pane| pane.window == window && pane.area == area;
        if let Some(at) = self.panes.iter().position(same) {
            return Some(at);
        }
        // Its size changed: it is the one that began there, if it has no other place now.
        let moved =
            |pane: &Pane| pane.window == window && pane.area.top == area.top && pane.area.left == area.left;
        if let Some(at) = self.panes.iter().position(moved) {
            self.panes[at].area = area;
            return Some(at);
        }
        if self.panes.len() == PANES_MAX {
            return None;
        }
        let number = self.panes.iter().filter(|pane| pane.window == window).count();
        let label = format!("{window}.{number}");
        let commands = Commands::new(self.ch, Some(label));
        let from = Place::default();
        self.panes.push(Pane { window, area, commands, prompt: None, from, waiting: VecDeque::new() });
        Some(self.panes.len() - 1)
    }

    /// The multiplexer is gone from the screen.
    pub(super) fn finish(self, end: Option<Place>, out: &mut dyn Findings) {
        for pane in self.panes {
            pane.commands.finish(end, out);
        }
    }
}

impl Pane {
    /// The pane's lines: rows that are full go on in the next.
    fn lines(&self, screen: &Emulator) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = String::new();
        let Area { top, bottom, left, right } = self.area;
        for row in top..bottom {
            let text = screen.text(row, left, right);
            let is_full = text.chars().next_back().is_some_and(|c| c != ' ');
            line.push_str(&text);
            if !is_full {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
            }
        }
        lines.push(line);
        lines
    }

    /// What is left of the cursor, if it is a prompt.
    fn prompt_here(&self, screen: &Emulator) -> Option<String> {
        let (row, col) = screen.visible_cursor();
        let prompt = screen.text(row, self.area.left, col.min(self.area.right));
        let prompt = self.commands.known_suffix(&prompt).map(str::to_owned).unwrap_or(prompt);
        let is_prompt = match self.commands.whose(&prompt, true) {
            _ if prompt.trim().is_empty() => false,
            Whose::Known(_) | Whose::Continues => true,
            Whose::Inner(_) | Whose::Changed => is_promptish(&prompt),
        };
        is_prompt.then_some(prompt)
    }

    /// What stands behind the lowest of these prompts.
    fn behind(&self, prompt: &str, screen: &Emulator) -> Option<String> {
        let lines = self.lines(screen);
        let text = lines.iter().rev().find_map(|line| line.strip_prefix(prompt))?;
        Some(text.to_owned())
    }
}

impl Waiting {
    /// The line, from the lowest that can be it on.
    fn find(&self, lines: &[String]) -> Option<String> {
        let dense = |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect() };
        let typed = self.typed.as_deref().map(dense);
        let seen = dense(&self.seen);
        let mut behind = lines.iter().rev().filter_map(|line| line.strip_prefix(self.prompt.as_str()));
        behind
            .find(|text| match &typed {
                Some(typed) => dense(text) == *typed,
                None => !text.is_empty() && dense(text).starts_with(&seen),
            })
            .map(str::to_owned)
    }
}

/// The rows that hold panes: without the status line of tmux.
fn rows(screen: &Emulator) -> (usize, usize) {
    let last = screen.rows() - 1;
    if is_status(screen, last) {
        (0, last)
    } else if is_status(screen, 0) {
        (1, last + 1)
    } else {
        (0, last + 1)
    }
}

/// Whether a row is a status line or screen's caption: it has a colour of its own from end to end.
fn is_status(screen: &Emulator, row: usize) -> bool {
    screen.visible(row).is_some_and(|line| {
        let mut cells = line.cells().iter();
        let Some(first) = cells.next() else { return false };
        let coloured = |pen: &avt::Pen| pen.is_inverse() || pen.background().is_some();
        coloured(first.pen()) && cells.all(|cell| coloured(cell.pen()))
    })
}

/// The window that tmux shows, by its status line; screen's by its caption.
fn window(screen: &Emulator) -> String {
    let (top, bottom) = rows(screen);
    let row = if bottom < screen.rows() { bottom } else { top.saturating_sub(1) };
    let text = if is_status(screen, row) { screen.text(row, 0, usize::MAX) } else { String::new() };
    let current = text.split_whitespace().find(|word| word.contains(':') && word.contains('*'));
    let number =
        current.and_then(|word| word.split(':').next()).filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    number.filter(|number| !number.is_empty()).unwrap_or("0").to_owned()
}

/// The area around the cursor up to the next borders.
fn area_of_cursor(screen: &Emulator) -> Option<Area> {
    let (first, last) = rows(screen);
    let (row, col) = screen.visible_cursor();
    if row < first || row >= last {
        return None;
    }
    let upright = |row, col| matches!(screen.char(row, col), '│' | '┃' | '├' | '┤' | '┼' | '┬' | '┴');
    let level = |row, col| matches!(screen.char(row, col), '─' | '━' | '├' | '┤' | '┼' | '┬' | '┴');
    // A border goes on beside the cursor's row as well; what a program draws seldom does.
    let is_border = |col| {
        upright(row, col)
            && (row == first || upright(row - 1, col) || level(row - 1, col))
            && (row + 1 >= last || upright(row + 1, col) || level(row + 1, col))
    };
    let cols = screen.width();
    let left = (0..col.min(cols)).rev().find(|col| is_border(*col)).map_or(0, |col| col + 1);
    let right = (col + 1..cols).find(|col| is_border(*col)).unwrap_or(cols);
    let is_edge = |row| is_status(screen, row) || (left..right).all(|col| level(row, col));
    let top = (first..row).rev().find(|row| is_edge(*row)).map_or(first, |row| row + 1);
    let bottom = (row + 1..last).find(|row| is_edge(*row)).unwrap_or(last);
    Some(Area { top, bottom, left, right })
}
