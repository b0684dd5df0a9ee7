//! Draws a picture and a line below it on the viewer's terminal.
//!
//! What goes out is made here: positions, colours and text out of the emulator's cells. No sequence of the session's is
//! among it. Only rows that changed are written.

use std::fmt::Write;

use crate::{
    emulator::{Colour, Picture, Row, Run, Style},
    escape,
};

/// What was drawn last.
#[derive(Default)]
pub struct Canvas {
    rows: Vec<String>,
    cols: u16,
}

impl Canvas {
    /// Everything is drawn next time.
    pub fn forget(&mut self) {
        self.rows.clear();
    }

    /// What to write to have the picture and the line on a terminal of this size. A picture that is too large is shown
    /// around its cursor.
    pub fn draw(&mut self, picture: &Picture, line: &str, (cols, rows): (u16, u16)) -> String {
        let mut out = String::from("\x1b[?25l");
        if self.rows.len() != usize::from(rows) || self.cols != cols {
            out.push_str("\x1b[0m\x1b[2J");
            self.rows = vec![String::new(); usize::from(rows)];
            self.cols = cols;
        }
        let room = usize::from(rows.saturating_sub(1));
        let cursor = picture.cursor.map_or(0, |(_, row)| usize::from(row));
        let first = (cursor + 1).saturating_sub(room);
        for number in 0..room {
            let row = picture.rows.get(first + number);
            let drawn = row.map(|row| row_sgr(row, cols)).unwrap_or_default();
            self.put(number, drawn, &mut out);
        }
        if let Some(last) = usize::from(rows).checked_sub(1) {
            self.put(last, status(line, cols), &mut out);
        }
        if let Some((col, row)) = picture.cursor.filter(|_| room > 0) {
            let row = usize::from(row).saturating_sub(first).min(room - 1);
            let _ = write!(out, "\x1b[{};{}H\x1b[?25h", row + 1, col.min(cols.saturating_sub(1)) + 1);
        }
        out
    }

    fn put(&mut self, number: usize, drawn: String, out: &mut String) {
        let Some(before) = self.rows.get_mut(number).filter(|before| **before != drawn) else { return };
        // Writing to a string can't fail.
        let _ = write!(out, "\x1b[{};1H\x1b[0m\x1b[2K{drawn}\x1b[0m", number + 1);
        *before = drawn;
    }
}

/// Text with its colours, cut to so many columns. A run that begins behind wide characters is put in its place, where
/// the viewer's terminal may think otherwise of their width.
fn row_sgr(row: &Row, cols: u16) -> String {
    let mut out = String::new();
    for Run { col, wide, style, text } in row {
        if *col >= cols {
            break;
        }
        let room = usize::from(cols - col) / if *wide { 2 } else { 1 };
        let text = text.chars().take(room).filter(|c| !escape::is_unsafe(*c));
        let _ = write!(out, "\x1b[{}G{}", col + 1, sgr(*style));
        out.extend(text);
    }
    out
}

fn sgr(style: Style) -> String {
    let Style { foreground, background, bold, faint, italic, underline, strike, inverse } = style;
    let mut out = String::from("\x1b[0");
    for (on, code) in [(bold, 1), (faint, 2), (italic, 3), (underline, 4), (inverse, 7), (strike, 9)] {
        if on {
            let _ = write!(out, ";{code}");
        }
    }
    for (colour, code) in [(foreground, 38), (background, 48)] {
        let _ = match colour {
            None => Ok(()),
            Some(Colour::Indexed(index)) => write!(out, ";{code};5;{index}"),
            Some(Colour::Rgb(r, g, b)) => write!(out, ";{code};2;{r};{g};{b}"),
        };
    }
    out.push('m');
    out
}

/// The line below, inverse and over the whole width.
fn status(line: &str, cols: u16) -> String {
    let cols = usize::from(cols);
    let safe: String =
        line.chars().map(|c| if escape::is_unsafe(c) { '\u{fffd}' } else { c }).take(cols).collect();
    format!("\x1b[7m{safe:<cols$}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        emulator::{Emulator, Size},
        play::screen::Screen,
    };

    fn drawn(bytes: &[u8], size: (u16, u16)) -> (Picture, String) {
        let mut emulator = Emulator::new(Size { cols: 12, rows: 4 }, true);
        emulator.feed(bytes);
        let picture = emulator.picture();
        let out = Canvas::default().draw(&picture, "below", size);
        (picture, out)
    }

    proptest! {
        #[test]
        fn nothing_but_text_colours_and_positions_goes_out(
            bytes in prop::collection::vec(prop_oneof![
                Just(b"\x1b[31;48;5;7m".to_vec()), Just(b"\x1b]52;c;AAAA\x07".to_vec()), Just("語".into()),
                Just(b"\x1b[?1049h\x1b[6n".to_vec()), prop::collection::vec(any::<u8>(), 0..10),
            ], 0..20).prop_map(|parts| parts.concat()),
            cols in 1u16..20,
            rows in 1u16..8,
        ) {
            let (_, out) = drawn(&bytes, (cols, rows));
            let rest = regex::Regex::new("\x1b\\[(\\?25[lh]|2J|2K|[0-9]+;[0-9]+H|[0-9]+G|[0-9;]+m)").expect("a pattern");
            prop_assert!(!rest.replace_all(&out, "").chars().any(escape::is_unsafe), "{:?}", out);
        }

        #[test]
        fn what_is_drawn_is_the_picture(bytes in "([a-z]{1,5}|\r\n|語|\x1b\\[3[1-7]m|\x1b\\[7m|\x1b\\[[1-4];[1-9]H){0,20}") {
            let (picture, out) = drawn(bytes.as_bytes(), (12, 5));
            let mut viewer = Emulator::new(Size { cols: 12, rows: 5 }, true);
            viewer.feed(out.as_bytes());
            let seen = viewer.picture();
            prop_assert_eq!(&seen.rows[..4], &picture.rows[..]);
            prop_assert_eq!(crate::emulator::row_text(&seen.rows[4]).trim_end(), "below");
            let last_column = |cursor: Option<(u16, u16)>| cursor.map(|(col, row)| (col.min(11), row));
            prop_assert_eq!(last_column(seen.cursor), last_column(picture.cursor));
            // The filter of the other way of playing finds nothing in it either.
            let filtered = Screen::default().filter(out.as_bytes());
            prop_assert_eq!(filtered.len(), out.len());
        }
    }

    #[test]
    fn a_small_terminal_shows_what_is_around_the_cursor_and_only_changes_are_drawn() {
        let mut emulator = Emulator::new(Size { cols: 12, rows: 4 }, true);
        emulator.feed(b"one\r\ntwo\r\nthree\r\nfour");
        let mut canvas = Canvas::default();
        let first = canvas.draw(&emulator.picture(), "x", (3, 3));
        assert!(first.contains("thr") && first.contains("fou") && !first.contains("two"), "{first:?}");
        assert_eq!(canvas.draw(&emulator.picture(), "x", (3, 3)), "\x1b[?25l\x1b[2;3H\x1b[?25h");
    }
}
