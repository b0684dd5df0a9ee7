//! A screen that follows a target's output. The emulator is `avt`: it keeps which rows belong to one line, lays them
//! out again on resize, and gives back what scrolls out. This module adds what `avt` has not: bytes instead of text,
//! row numbers that stay, and what scrolled out while a command was being entered.
//!
//! Bounded: no scrollback, sizes within [`COLS_MAX`] and [`ROWS_MAX`], and at most [`SCROLLED_CHARS_MAX`] characters
//! of what scrolled out.

use std::collections::VecDeque;

use avt::{
    Line, Observation, Observer, Operation, ScreenKind,
    parser::{EdScope, Function},
};
use weir_common::frame::WindowSize;

use super::{
    grid::{Grid, Pos, Row},
    transcript::Transcript,
};

/// The most columns: no screen is wider, and every cell takes memory.
const COLS_MAX: usize = 500;
/// The most rows.
const ROWS_MAX: usize = 300;
/// The most characters kept of what scrolled out while a command was entered: more than any command may have.
const SCROLLED_CHARS_MAX: usize = 64 << 10;
/// The most bytes that may begin a character of UTF-8 and not end it.
const UTF8_TAIL_MAX: usize = 3;

/// A terminal's screen.
pub(super) struct Emulator {
    vt: avt::Terminal,
    /// The first bytes of a character whose others have not come.
    tail: Vec<u8>,
    /// Number of the topmost row.
    top: u64,
    scrolled: Scrolled,
}

/// Rows that scrolled out.
#[derive(Default)]
struct Scrolled {
    keep: bool,
    rows: VecDeque<(u64, Row)>,
    chars: usize,
}

impl Emulator {
    pub(super) fn new(size: WindowSize) -> Self {
        let (cols, rows) = clamped(size);
        // A size that is clamped is not refused; the fallback is never taken.
        let vt = avt::Terminal::new(cols, rows)
            .or_else(|_| avt::Terminal::new(80, 24))
            .unwrap_or_else(|_| unreachable!("80 by 24 are positive"));
        Self { vt, tail: Vec::new(), top: 0, scrolled: Scrolled::default() }
    }

    /// Takes output. Lines that are final go to `transcript`.
    pub(super) fn feed(&mut self, bytes: &[u8], transcript: &mut Transcript) {
        if self.tail.is_empty() && bytes.is_ascii() {
            // A check that costs little next to what it saves.
            if let Ok(text) = std::str::from_utf8(bytes) {
                self.feed_text(text, transcript);
            }
            return;
        }
        let mut joined = std::mem::take(&mut self.tail);
        joined.extend_from_slice(bytes);
        let mut chunks = joined.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.feed_text(chunk.valid(), transcript);
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && invalid.len() <= UTF8_TAIL_MAX && is_begun(invalid) {
                self.tail = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.feed_text("\u{fffd}", transcript);
            }
        }
    }

    fn feed_text(&mut self, text: &str, transcript: &mut Transcript) {
        let Self { vt, top, scrolled, .. } = self;
        vt.feed_with(text, Watch { top, scrolled, transcript });
    }

    /// Takes another size, and says where `places` are then.
    pub(super) fn resize(&mut self, size: WindowSize, places: &mut [&mut Pos], transcript: &mut Transcript) {
        let (cols, rows) = clamped(size);
        let at: Vec<_> = places.iter().map(|place| self.relative(**place)).collect();
        let Self { vt, top, scrolled, .. } = self;
        vt.resize_with(cols, rows, Watch { top, scrolled, transcript });
        for (place, at) in places.iter_mut().zip(at) {
            if let Some((lines, cells)) = at {
                **place = self.absolute(lines, cells);
            }
        }
    }

    /// A place as lines above the cursor's, and cells into the line.
    fn relative(&self, pos: Pos) -> Option<(usize, usize)> {
        if pos.row < self.top || self.is_alternate() {
            return None;
        }
        let start = self.line_start(pos.row);
        let cells = usize::try_from(pos.row - start).ok()? * self.cols() + pos.col;
        let (mut row, mut lines) = (self.line_start(self.cursor().row), 0);
        while row > start {
            row = self.line_start(row - 1);
            lines += 1;
        }
        Some((lines, cells))
    }

    fn absolute(&self, lines: usize, cells: usize) -> Pos {
        let mut row = self.line_start(self.cursor().row);
        for _ in 0..lines {
            row = self.line_start(row.saturating_sub(1));
        }
        let rows = (cells / self.cols()) as u64;
        Pos { row: row + rows, col: cells % self.cols() }
    }

    /// Whether rows that scroll out are to be kept.
    pub(super) fn keep(&mut self, keep: bool) {
        self.scrolled.keep = keep;
        if !keep {
            self.scrolled.rows.clear();
            self.scrolled.chars = 0;
        }
    }

    pub(super) fn is_alternate(&self) -> bool {
        self.vt.active_screen_kind() == ScreenKind::Alternate
    }

    /// How many rows there are on the screen.
    pub(super) fn rows(&self) -> usize {
        self.vt.size().1
    }

    /// How many columns.
    pub(super) fn width(&self) -> usize {
        self.vt.size().0
    }

    /// How many cells a screen of this size has here.
    pub(super) fn cells_of(size: WindowSize) -> usize {
        let (cols, rows) = clamped(size);
        cols * rows
    }

    /// How many cells the screen has.
    pub(super) fn cells(&self) -> usize {
        self.rows() * self.width()
    }

    /// A row of what is to be seen, from 0.
    pub(super) fn visible(&self, row: usize) -> Option<&Line> {
        self.vt.screen().line(row)
    }

    /// A character of what is to be seen.
    pub(super) fn char(&self, row: usize, col: usize) -> char {
        self.visible(row).and_then(|line| line.cells().get(col)).map_or(' ', avt::Cell::char)
    }

    /// A row's text between two columns, with trailing blanks.
    pub(super) fn text(&self, row: usize, left: usize, right: usize) -> String {
        let Some(line) = self.visible(row) else { return String::new() };
        let cells = line.cells().iter().take(right).skip(left).filter(|cell| cell.width() > 0);
        cells.map(avt::Cell::char).collect()
    }

    /// The row on which the cursor is, from 0, and its column.
    pub(super) fn visible_cursor(&self) -> (usize, usize) {
        let cursor = self.vt.cursor();
        (cursor.row, cursor.col)
    }

    /// The rest of the main screen is final.
    pub(super) fn finish(self, transcript: &mut Transcript) {
        let lines: Vec<_> = self.vt.primary_screen().visible_lines().collect();
        let used = lines.iter().rposition(|line| !is_blank(line)).map_or(0, |last| last + 1);
        for (row, line) in (self.top..).zip(&lines[..used]) {
            transcript.row(row, line);
        }
        transcript.finish();
    }
}

impl Grid for Emulator {
    fn cursor(&self) -> Pos {
        let cursor = self.vt.cursor();
        Pos { row: self.top + cursor.row as u64, col: cursor.col }
    }

    fn row(&self, number: u64) -> Option<Row> {
        match number.checked_sub(self.top) {
            Some(row) => self.vt.screen().line(usize::try_from(row).ok()?).map(row_of),
            None => {
                let first = self.scrolled.rows.front()?.0;
                let at = usize::try_from(number.checked_sub(first)?).ok()?;
                self.scrolled.rows.get(at).map(|(_, row)| row.clone())
            }
        }
    }

    fn cols(&self) -> usize {
        self.vt.size().0
    }
}

pub(super) fn row_of(line: &Line) -> Row {
    let mut cells = Vec::with_capacity(line.len());
    cells.extend(
        line.cells()
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.width() > 0)
            .map(|(col, cell)| (col, cell.char())),
    );
    Row { cells, wrapped: line.is_wrapped() }
}

fn is_blank(line: &Line) -> bool {
    line.cells().iter().all(|cell| cell.char() == ' ')
}

fn clamped(size: WindowSize) -> (usize, usize) {
    let within = |n: u32, usual: usize, most: usize| match n {
        // A client that has no window says 0; targets take this for the usual size.
        0 => usual,
        n => usize::try_from(n).unwrap_or(most).min(most),
    };
    (within(size.cols, 80, COLS_MAX), within(size.rows, 24, ROWS_MAX))
}

/// Whether these bytes can begin a character of UTF-8.
fn is_begun(bytes: &[u8]) -> bool {
    let len = match bytes.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 0,
    };
    bytes.len() < len
}

/// Watches what the emulator drops.
struct Watch<'a> {
    top: &'a mut u64,
    scrolled: &'a mut Scrolled,
    transcript: &'a mut Transcript,
}

impl Observer for Watch<'_> {
    type Output = ();

    fn before(&mut self, context: &mut Observation<'_>, operation: &Operation) {
        let Operation::Function(function) = operation else { return };
        // The whole screen is going to be erased. `avt` scrolls out what `ED 2` erases.
        let erases = match function {
            Function::Ed(EdScope::Below) => {
                let cursor = context.terminal().cursor();
                (cursor.row, cursor.col) == (0, 0)
            }
            Function::Ris => true,
            _ => false,
        };
        if !erases
            || context.terminal().active_screen_kind() == ScreenKind::Alternate && *function != Function::Ris
        {
            return;
        }
        let lines: Vec<_> = context.terminal().primary_screen().visible_lines().collect();
        let used = lines.iter().rposition(|line| !is_blank(line)).map_or(0, |last| last + 1);
        for (row, line) in (*self.top..).zip(&lines[..used]) {
            self.transcript.row(row, line);
        }
    }

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.transcript.row(*self.top, line);
        if self.scrolled.keep {
            let row = row_of(line);
            self.scrolled.chars += row.cells.len();
            self.scrolled.rows.push_back((*self.top, row));
            while self.scrolled.chars > SCROLLED_CHARS_MAX {
                let Some((_, row)) = self.scrolled.rows.pop_front() else { break };
                self.scrolled.chars -= row.cells.len();
            }
        }
        *self.top += 1;
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}
