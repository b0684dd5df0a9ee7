//! The lines of a terminal's main screen, as they become final.

use std::collections::VecDeque;

use avt::Line;

/// The most characters of a line; what is longer becomes several.
const LINE_CHARS_MAX: usize = 16 << 10;
/// The most remarks that wait for their place.
const NOTES_MAX: usize = 64;
/// The most rows that are known to hold a command: more than a screen has.
const COMMANDS_MAX: usize = 1000;

/// A line that will not change any more.
pub(super) struct Said {
    pub(super) t: u64,
    pub(super) text: String,
    pub(super) is_command: bool,
}

/// Puts lines together from rows.
#[derive(Default)]
pub(super) struct Transcript {
    /// From which row on the cursor was when.
    begun: VecDeque<(u64, u64)>,
    /// Rows on which commands were entered.
    commands: VecDeque<u64>,
    /// Remarks, and the rows before which they stand.
    notes: VecDeque<(u64, Said)>,
    line: String,
    chars: usize,
    /// When the line was begun, and whether a command is on it; none between lines.
    open: Option<(u64, bool)>,
    ready: Vec<Said>,
}

impl Transcript {
    /// The cursor is on this row at this time.
    pub(super) fn at(&mut self, row: u64, t: u64) {
        if self.begun.back().is_none_or(|(last, _)| row > *last) {
            self.begun.push_back((row, t));
        }
    }

    /// A command was entered on this row.
    pub(super) fn command(&mut self, row: u64) {
        if self.commands.len() == COMMANDS_MAX {
            self.commands.pop_front();
        }
        self.commands.push_back(row);
    }

    /// Something to be said before this row.
    pub(super) fn note(&mut self, row: u64, t: u64, text: String) {
        self.notes.push_back((row, Said { t, text, is_command: false }));
        if self.notes.len() > NOTES_MAX
            && let Some((_, note)) = self.notes.pop_front()
        {
            self.ready.push(note);
        }
    }

    /// A row is final.
    pub(super) fn row(&mut self, number: u64, line: &Line) {
        while self.begun.get(1).is_some_and(|(row, _)| *row <= number) {
            self.begun.pop_front();
        }
        let mut is_command = false;
        while let Some(row) = self.commands.front().copied().filter(|row| *row <= number) {
            self.commands.pop_front();
            is_command |= row == number;
        }
        if self.open.is_none() {
            while self.notes.front().is_some_and(|(row, _)| *row <= number) {
                self.ready.extend(self.notes.pop_front().map(|(_, note)| note));
            }
        }
        // A row that the cursor was seen on neither before nor after an event was written by the event that took it further.
        let seen = self.begun.front().filter(|(row, _)| *row == number);
        let begun = seen.or(self.begun.get(1)).or(self.begun.front()).map_or(0, |(_, t)| *t);
        let (_, holds) = self.open.get_or_insert((begun, false));
        *holds |= is_command;
        // Most rows are mostly blank: what a line ends without is not copied first.
        let used = match line.is_wrapped() {
            true => line.len(),
            false => line.cells().iter().rposition(|cell| cell.char() != ' ').map_or(0, |last| last + 1),
        };
        let cells = line.cells()[..used].iter().filter(|cell| cell.width() > 0);
        self.line.extend(cells.map(avt::Cell::char));
        self.chars += line.len();
        if !line.is_wrapped() || self.chars > LINE_CHARS_MAX {
            self.say();
        }
    }

    fn say(&mut self) {
        if let Some((t, is_command)) = self.open.take() {
            let text = self.line.trim_end().to_owned();
            self.ready.push(Said { t, text, is_command });
        }
        self.line.clear();
        self.chars = 0;
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        self.say();
        self.ready.extend(self.notes.drain(..).map(|(_, note)| note));
    }

    /// The lines that became final since.
    pub(super) fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.ready)
    }
}
