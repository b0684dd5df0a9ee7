//! What of a screen is needed to read commands off it: rows that keep their number while they scroll.

/// A row of cells.
#[derive(Clone, Default)]
pub(super) struct Row {
    /// Characters with their columns; the second half of a wide one has none. Trailing blanks may be missing.
    pub(super) cells: Vec<(usize, char)>,
    /// Whether the line goes on in the next row.
    pub(super) wrapped: bool,
}

impl Row {
    /// The text up to a column, as it stands there.
    pub(super) fn before(&self, col: usize) -> String {
        self.cells.iter().take_while(|(at, _)| *at < col).map(|(_, c)| c).collect()
    }

    /// The text from a column on, without trailing blanks.
    pub(super) fn from(&self, col: usize) -> String {
        let text: String = self.cells.iter().filter(|(at, _)| *at >= col).map(|(_, c)| c).collect();
        text.trim_end().to_owned()
    }

    /// All of it, without trailing blanks.
    pub(super) fn text(&self) -> String {
        self.from(0)
    }
}

/// A place on a screen: a row's number and a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    /// Rows are numbered from the channel's first on.
    pub(super) row: u64,
    /// From 0; the screen's width behind the last cell.
    pub(super) col: usize,
}

/// A screen with what scrolled out of it lately.
pub(super) trait Grid {
    /// Where the cursor is.
    fn cursor(&self) -> Pos;
    /// A row; none when it is forgotten, or not there.
    fn row(&self, number: u64) -> Option<Row>;
    /// How many columns there are.
    fn cols(&self) -> usize;

    /// Where the line begins to which a row belongs, at most `LINE_ROWS_MAX` rows up.
    fn line_start(&self, row: u64) -> u64 {
        let mut start = row;
        while start > 0 && row - start < LINE_ROWS_MAX && self.row(start - 1).is_some_and(|row| row.wrapped) {
            start -= 1;
        }
        start
    }
}

/// The most rows of a line that are looked at: commands are bounded, and so is the work.
pub(super) const LINE_ROWS_MAX: u64 = 2000;
