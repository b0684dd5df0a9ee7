//! A terminal in memory: what a session's bytes made of its screen.
//!
//! Bytes go through [`Screen`] first, which leaves only what changes the picture, so the emulator sees none of the
//! sequences that it would have to store. What comes out is text and colours: nothing of it is a control sequence,
//! and a viewer draws it as it likes.

use weir_common::frame::WindowSize;

use crate::{escape, play::screen::Screen};

/// The largest screen that is followed. A client may claim any size.
const COLS_MAX: u32 = 1000;
/// The same for its rows.
const ROWS_MAX: u32 = 500;

/// The size of a screen in characters, within limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns, from 1.
    pub cols: u16,
    /// Rows, from 1.
    pub rows: u16,
}

impl Default for Size {
    fn default() -> Self {
        Self { cols: 80, rows: 24 }
    }
}

impl From<WindowSize> for Size {
    /// What a client says; it says nothing with a 0.
    fn from(size: WindowSize) -> Self {
        let or = |value, default: u16, max: u32| match value {
            0 => default,
            value => u16::try_from(value.min(max)).unwrap_or(default),
        };
        let Self { cols, rows } = Self::default();
        Self { cols: or(size.cols, cols, COLS_MAX), rows: or(size.rows, rows, ROWS_MAX) }
    }
}

/// A colour of the palette or by its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Colour {
    /// One of 256.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Style {
    /// Of the characters; `None` for the terminal's own.
    pub foreground: Option<Colour>,
    /// Behind the characters.
    pub background: Option<Colour>,
    /// Bold.
    pub bold: bool,
    /// Faint.
    pub faint: bool,
    /// Italic.
    pub italic: bool,
    /// Underlined.
    pub underline: bool,
    /// Struck through.
    pub strike: bool,
    /// Foreground and background change places.
    pub inverse: bool,
}

/// Characters beside each other that look the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The column of the first.
    pub col: u16,
    /// Whether each takes two columns.
    pub wide: bool,
    /// How they look.
    pub style: Style,
    /// What they are; nothing that [`escape::is_unsafe`] knows.
    pub text: String,
}

/// A row of the screen, without the blanks at its end.
pub type Row = Vec<Run>;

/// What stands on the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// The screen's size.
    pub size: Size,
    /// Its rows, from the top.
    pub rows: Vec<Row>,
    /// Column and row of the cursor, where it can be seen.
    pub cursor: Option<(u16, u16)>,
}

impl Picture {
    /// The text of its rows, one below the other.
    #[must_use]
    pub fn text(&self) -> String {
        let rows = self.rows.iter().map(|row| row_text(row));
        rows.collect::<Vec<_>>().join("\n")
    }
}

/// The text of a row.
#[must_use]
pub fn row_text(row: &[Run]) -> String {
    row.iter().map(|run| run.text.as_str()).collect()
}

/// The state of an emulator at one moment.
#[derive(Clone)]
pub struct State {
    size: Size,
    cooked: bool,
    /// Control sequences that bring a fresh emulator into it.
    dump: String,
}

impl State {
    /// How many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.dump.len() + size_of::<Self>()
    }
}

/// Follows one terminal.
pub struct Emulator {
    terminal: avt::Terminal,
    size: Size,
    filter: Screen,
    line_feeds: LineFeeds,
}

impl Emulator {
    /// An empty screen. `cooked` output comes from a terminal's line discipline; other output has bare line feeds.
    #[must_use]
    pub fn new(size: Size, cooked: bool) -> Self {
        let line_feeds = LineFeeds::new(cooked);
        Self { terminal: fresh(size), size, filter: Screen::default(), line_feeds }
    }

    /// Takes output. Sequences may be split between calls anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let safe = self.filter.filter(&self.line_feeds.apply(bytes));
        self.terminal.feed(String::from_utf8_lossy(&safe).as_ref());
    }

    /// The window has another size now.
    pub fn resize(&mut self, size: Size) {
        if size != self.size {
            self.size = size;
            self.terminal.resize(size.cols.into(), size.rows.into());
        }
    }

    /// What stands on the screen.
    #[must_use]
    pub fn picture(&self) -> Picture {
        let rows = self.terminal.screen().visible_lines().map(row).collect();
        let cursor = self.terminal.cursor().position().map(|(col, row)| {
            let at = |value: usize, end: u16| u16::try_from(value).unwrap_or(end).min(end - 1);
            (at(col, self.size.cols), at(row, self.size.rows))
        });
        Picture { size: self.size, rows, cursor }
    }

    /// The state to come back to; `None` in the middle of a control sequence.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        let dump = || State { size: self.size, cooked: self.line_feeds.cooked, dump: self.terminal.dump() };
        (self.filter.is_at_rest() && !self.line_feeds.after_return).then(dump)
    }

    /// An emulator in this state.
    #[must_use]
    pub fn at(state: &State) -> Self {
        let mut emulator = Self::new(state.size, state.cooked);
        emulator.terminal.feed(state.dump.as_str());
        emulator
    }
}

fn fresh(Size { cols, rows }: Size) -> avt::Terminal {
    let cols_rows = (usize::from(cols.max(1)), usize::from(rows.max(1)));
    match avt::Terminal::new(cols_rows.0, cols_rows.1) {
        Ok(terminal) => terminal,
        Err(avt::InvalidSize { .. }) => unreachable!("both are at least 1"),
    }
}

fn row(line: &avt::Line) -> Row {
    let mut row: Row = Vec::new();
    let end = line.cells().iter().rposition(|cell| cell.char() != ' ' || !is_plain(cell.pen()));
    let cells = &line.cells()[..end.map_or(0, |end| end + 1)];
    for (col, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.width() > 0) {
        let (style, wide) = (style(cell.pen()), cell.width() > 1);
        let c = if escape::is_unsafe(cell.char()) { char::REPLACEMENT_CHARACTER } else { cell.char() };
        match row.last_mut() {
            Some(run) if run.style == style && run.wide == wide => run.text.push(c),
            _ => {
                let col = u16::try_from(col).unwrap_or(u16::MAX);
                row.push(Run { col, wide, style, text: c.to_string() });
            }
        }
    }
    row
}

/// Whether a blank in it can't be seen.
fn is_plain(pen: &avt::Pen) -> bool {
    pen.background().is_none() && !pen.is_inverse() && !pen.is_underline() && !pen.is_strikethrough()
}

fn style(pen: &avt::Pen) -> Style {
    let colour = |colour| match colour {
        avt::Color::Indexed(index) => Colour::Indexed(index),
        avt::Color::RGB(avt::Rgb { r, g, b }) => Colour::Rgb(r, g, b),
    };
    Style {
        foreground: pen.foreground().map(colour),
        background: pen.background().map(colour),
        bold: pen.is_bold(),
        faint: pen.is_faint(),
        italic: pen.is_italic(),
        underline: pen.is_underline(),
        strike: pen.is_strikethrough(),
        inverse: pen.is_inverse(),
    }
}

/// Gives line feeds the carriage returns that a terminal's line discipline would have given them.
pub struct LineFeeds {
    cooked: bool,
    after_return: bool,
}

impl LineFeeds {
    /// `cooked` output has them already.
    #[must_use]
    pub fn new(cooked: bool) -> Self {
        Self { cooked, after_return: false }
    }

    /// The bytes as a terminal wants them.
    pub fn apply<'a>(&mut self, bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        if self.cooked {
            return bytes.into();
        }
        let mut out = Vec::with_capacity(bytes.len() + 16);
        for &byte in bytes {
            if byte == b'\n' && !self.after_return {
                out.push(b'\r');
            }
            self.after_return = byte == b'\r';
            out.push(byte);
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(cols: u16, rows: u16) -> Size {
        Size { cols, rows }
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[a-zA-Z0-9 ~äß語😀]{0,12}".prop_map(String::into_bytes),
            "\x1b\\[[0-9;:?]{0,12}[@-~]".prop_map(String::into_bytes),
            "\x1b[ -/]{0,2}[0-~]".prop_map(String::into_bytes),
            "\x1b[\\]PX^_][a-z;0-9]{0,9}(\x07|\x1b\\\\)?".prop_map(String::into_bytes),
            "[\r\n\x08\t\x0e\x0f]{1,4}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_in_only_text_comes_out_within_the_screen(
            parts in prop::collection::vec((hostile(), 0u32..200, 0u32..60), 1..5),
        ) {
            let mut emulator = Emulator::new(Size::default(), true);
            for (bytes, cols, rows) in parts {
                emulator.feed(&bytes);
                emulator.resize(WindowSize { cols, rows, width_px: 0, height_px: 0 }.into());
                let picture = emulator.picture();
                prop_assert_eq!(picture.rows.len(), usize::from(picture.size.rows));
                prop_assert!(!picture.text().replace('\n', "").chars().any(escape::is_unsafe));
                prop_assert!(picture.cursor.is_none_or(|(col, row)| col < picture.size.cols && row < picture.size.rows));
            }
        }

        #[test]
        fn an_emulator_goes_on_from_a_state_as_the_one_it_was_taken_of(before in hostile(), after in hostile()) {
            let mut emulator = Emulator::new(size(20, 6), true);
            emulator.feed(&before);
            if let Some(state) = emulator.state() {
                let mut other = Emulator::at(&state);
                prop_assert_eq!(other.picture(), emulator.picture());
                other.feed(&after);
                emulator.feed(&after);
                prop_assert_eq!(other.picture(), emulator.picture());
            }
        }
    }

    #[test]
    fn a_screen_is_text_with_colours_and_a_cursor() {
        let mut emulator = Emulator::new(size(10, 3), true);
        emulator.feed(b"\x1b[1;31mred\x1b[0m x\r\n\x1b(0lqk\x1b(B\x1b]0;title\x07");
        let picture = emulator.picture();
        assert_eq!(picture.text(), "red x\n┌─┐\n");
        let red = Style { foreground: Some(Colour::Indexed(1)), bold: true, ..Style::default() };
        assert_eq!(picture.rows[0][0], Run { col: 0, wide: false, style: red, text: "red".into() });
        assert_eq!(picture.cursor, Some((3, 1)));
    }

    #[test]
    fn bare_line_feeds_start_lines_where_there_was_no_terminal() {
        for (cooked, expected) in [(true, "a\n b\n"), (false, "a\nb\n")] {
            let mut emulator = Emulator::new(size(5, 3), cooked);
            emulator.feed(b"a\nb");
            assert_eq!(emulator.picture().text(), expected);
        }
    }

    #[test]
    fn absurd_sizes_are_cut_down() {
        let asked = |cols, rows| Size::from(WindowSize { cols, rows, width_px: 0, height_px: 0 });
        assert_eq!(asked(0, 0), Size::default());
        assert_eq!(asked(u32::MAX, u32::MAX), size(1000, 500));
        assert_eq!(asked(1, 1), size(1, 1));
    }

    #[test]
    fn a_repeated_repetition_costs_no_more_than_a_screen() {
        let mut emulator = Emulator::new(Size::default(), true);
        let started = std::time::Instant::now();
        emulator.feed(&b"x\x1b[65535b".repeat(10_000));
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
