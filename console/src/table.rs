//! Lines text up in columns.
//!
//! Cells are escaped here, so that no cell can break out of its place. A column is as wide as its widest cell,
//! measured in characters.

use std::io::{self, Write};

use crate::escape;

/// Where the cells of a column line up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// At their left, for text.
    Left,
    /// At their right, for numbers.
    Right,
}

/// Rows of cells.
#[derive(Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new<const N: usize>(columns: [(&str, Align); N]) -> Self {
        let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        Self { aligns: columns.iter().map(|(_, align)| *align).collect(), rows: vec![headings] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| escape::text(&cell).to_string()).collect());
    }

    /// Writes it; `heading` gives the first line its look.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, out: &mut dyn Write, heading: impl Fn(&str) -> String) -> io::Result<()> {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.aligns.len()).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&self.aligns).zip(&widths).map(|((cell, align), width)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            writeln!(out, "{}", if number == 0 { heading(line) } else { line.to_owned() })?;
        }
        Ok(())
    }
}

/// A number with its thousands apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The time between two moments, in the units that matter.
#[must_use]
pub fn duration(from: jiff::Timestamp, to: jiff::Timestamp) -> String {
    let ms = to.as_millisecond() - from.as_millisecond();
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}.{:03} s", ms % 1000),
        (0, minutes) => format!("{sign}{minutes} min {seconds} s"),
        (hours, minutes) => format!("{sign}{hours} h {minutes} min {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn cells_line_up_and_hostile_ones_stay_in_their_place() {
        let mut table = Table::new([("NAME", Align::Left), ("BYTES", Align::Right)]);
        table.row(["a\nb".to_owned(), grouped(7)]);
        table.row(["c".to_owned(), grouped(1_234_567)]);
        let mut out = Vec::new();
        table.write(&mut out, str::to_uppercase).expect("in memory");
        let expected = "NAME      BYTES\na\\nb          7\nc     1,234,567\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn durations_are_in_the_units_that_matter() {
        let after = |ms| duration(Timestamp::UNIX_EPOCH, Timestamp::from_millisecond(ms).expect("a time"));
        assert_eq!(after(1_250), "1.250 s");
        assert_eq!(after(252_000), "4 min 12 s");
        assert_eq!(after(7_384_000), "2 h 3 min 4 s");
        assert_eq!(after(-1_250), "-1.250 s");
    }
}
