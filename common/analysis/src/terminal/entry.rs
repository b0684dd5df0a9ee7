//! A line that is being entered at a prompt, and how it is read off the screen.

use weir_common::recording::findings::{COMMAND_CHARS_MAX, Confidence};

use super::{
    commands::{Commands, Place, Whose},
    grid::{Grid, LINE_ROWS_MAX, Pos},
    prompt::{PROMPT_CHARS_MAX, by_shape, is_promptish},
};
use crate::At;

/// A line that is being entered.
pub(super) struct Entry {
    /// Where its prompt began to be drawn.
    pub(super) start: Pos,
    /// Where the prompt ends, as far as is known.
    pub(super) pos: Option<Pos>,
    /// Whether that is certain.
    pub(super) sure: bool,
    /// The prompt's last line.
    pub(super) prompt: Option<String>,
    /// What stands at the right end of the prompt's row.
    pub(super) right: Option<String>,
    /// Whether something had been typed before the prompt was there.
    pub(super) ahead: bool,
    /// Whether marks say where it begins.
    pub(super) marked: bool,
    /// Whether no line editor was seen to wait.
    pub(super) plain: bool,
    /// Whether a key was pressed since it waits.
    pub(super) typed: bool,
    /// Whether a piece of output ended since it waits.
    pub(super) drawn: bool,
    /// Whether the window's size changed since.
    pub(super) resized: bool,
    /// The line as it was typed, where it was.
    pub(super) line: Option<String>,
    /// Whether some of it was typed before the prompt was drawn, and may stand elsewhere.
    pub(super) lead: bool,
    pub(super) pasted: bool,
    pub(super) adjacent: bool,
    pub(super) from: Place,
    pub(super) enter: Option<At>,
}

/// What was read.
pub(super) struct Read {
    pub(super) text: String,
    pub(super) prompt: String,
    pub(super) confidence: Confidence,
    /// The row on which it begins.
    pub(super) row: u64,
    /// Whether its further lines were set in.
    pub(super) set_in: bool,
}

/// A line of several rows.
struct Line {
    row: u64,
    /// Characters with their cell, counted over the rows.
    cells: Vec<(usize, char)>,
}

impl Line {
    fn text(&self) -> String {
        self.cells.iter().map(|(_, c)| c).collect()
    }

    fn from(&self, cell: usize) -> String {
        self.cells.iter().filter(|(at, _)| *at >= cell).map(|(_, c)| c).collect()
    }

    fn before(&self, cell: usize) -> String {
        self.cells.iter().filter(|(at, _)| *at < cell).map(|(_, c)| c).collect()
    }

    /// The cell at which the text behind so many bytes begins.
    fn cell_of(&self, bytes: usize) -> usize {
        let mut before = 0;
        for (cell, c) in &self.cells {
            if before >= bytes {
                return *cell;
            }
            before += c.len_utf8();
        }
        self.cells.last().map_or(0, |(cell, _)| cell + 1)
    }
}

impl Entry {
    /// The prompt is complete: the cursor stands behind it.
    pub(super) fn settle(&mut self, grid: &dyn Grid, commands: &Commands) {
        let cursor = grid.cursor();
        self.pos = Some(cursor);
        let mut start = grid.line_start(cursor.row);
        // zsh fills up the row of what does not end in a line end (PROMPT_SP).
        for row in start..cursor.row {
            if grid.row(row).is_some_and(|row| row.before(usize::MAX).ends_with("  ")) {
                start = row + 1;
            }
        }
        let mut prompt = String::new();
        for row in start..cursor.row {
            prompt.push_str(&grid.row(row).map(|row| row.before(usize::MAX)).unwrap_or_default());
        }
        if let Some(row) = grid.row(cursor.row) {
            prompt.push_str(&row.before(cursor.col));
            let right = row.from(cursor.col);
            self.right = Some(right.trim_start().to_owned()).filter(|text| !text.is_empty());
        }
        // What an earlier command printed without a line end does not belong to it.
        let prompt = commands.known_suffix(&prompt).map(str::to_owned).unwrap_or(prompt);
        self.prompt = (prompt.chars().count() <= PROMPT_CHARS_MAX).then_some(prompt);
    }

    /// Reads what was entered. `expected` is what was typed, if that is known; `rights` whether right prompts were seen.
    pub(super) fn read(
        &self,
        grid: &dyn Grid,
        end: u64,
        commands: &Commands,
        expected: Option<&str>,
        rights: bool,
    ) -> Option<Read> {
        let (lines, whole) = self.lines(grid, end);
        let (line, cell, sure) = self.find(grid, &lines, commands, expected)?;
        let prompt = lines[line].before(cell);
        let mut text = lines[line].from(cell);
        self.cut_right(&mut text, grid.cols(), rights, cell);
        let mut text = text.trim_end().to_owned();
        let indent = cell % grid.cols();
        let more: Vec<String> =
            lines[line + 1..].iter().map(|line| line.text().trim_end().to_owned()).collect();
        // fish sets further lines in, by the prompt's width and by what they mean.
        let set_in = |line: &String| line.is_empty() || line.len() - line.trim_start().len() >= indent;
        let is_set_in = indent > 1 && more.iter().all(set_in);
        for line in &more {
            text.push('\n');
            text.push_str(if is_set_in { line.trim_start() } else { line });
            if text.len() > 4 * COMMAND_CHARS_MAX {
                break;
            }
        }
        let mut text = text.trim_end_matches('\n').to_owned();
        if self.lead
            && let Some(typed) = expected.filter(|typed| typed.ends_with(text.as_str()))
        {
            text = typed.trim_end().to_owned();
        }
        let torn = !whole || self.resized || !sure;
        if let Some(expected) = expected.map(str::trim_end).filter(|expected| is_same(&text, expected, torn))
        {
            text = expected.to_owned();
        }
        let confidence = if sure && whole { Confidence::High } else { Confidence::Low };
        let set_in = is_set_in && !more.is_empty();
        let prompt = match &self.prompt {
            Some(known) if prompt.ends_with(known.as_str()) => known.clone(),
            _ => prompt,
        };
        Some(Read { text, prompt, confidence, row: lines[line].row, set_in })
    }

    /// The lines from the prompt to the end, and whether none is missing.
    fn lines(&self, grid: &dyn Grid, end: u64) -> (Vec<Line>, bool) {
        let first = self.pos.map_or(self.start.row, |pos| pos.row.min(self.start.row)).min(end);
        let first = grid.line_start(first.max(end.saturating_sub(LINE_ROWS_MAX)));
        let cols = grid.cols();
        let mut lines: Vec<Line> = Vec::new();
        let (mut whole, mut wrapped, mut cells) = (true, false, 0);
        for number in first..=end {
            let Some(row) = grid.row(number) else {
                whole = false;
                wrapped = false;
                continue;
            };
            if !wrapped {
                lines.push(Line { row: number, cells: Vec::new() });
                cells = 0;
            }
            // A row that is full goes on, also where a program moved the cursor itself.
            let is_full = row.cells.last().is_some_and(|(col, c)| *col + 1 >= cols && *c != ' ');
            wrapped = row.wrapped || (is_full && number < end && grid.row(number + 1).is_some());
            if let Some(line) = lines.last_mut() {
                // A wide character that does not fit leaves a cell free.
                let is_wide = row.cells.first().is_some_and(|(col, _)| *col == 0)
                    && row.cells.get(1).is_some_and(|(col, _)| *col == 2);
                if is_wide
                    && cells > 0
                    && line.cells.last().is_some_and(|(cell, c)| *c == ' ' && cell + 1 == cells)
                {
                    line.cells.pop();
                }
                line.cells.extend(row.cells.iter().map(|(col, c)| (cells + col, *c)));
            }
            cells += cols;
        }
        (lines, whole)
    }

    /// The line and the cell at which the entry begins, and whether that is sure.
    fn find(
        &self,
        grid: &dyn Grid,
        lines: &[Line],
        commands: &Commands,
        expected: Option<&str>,
    ) -> Option<(usize, usize, bool)> {
        let by_pos = self.pos.and_then(|pos| {
            let line = lines.iter().rposition(|line| line.row <= pos.row)?;
            let rows = usize::try_from(pos.row - lines[line].row).ok()?;
            Some((line, rows * grid.cols() + pos.col))
        });
        let texts: Vec<String> = lines.iter().map(Line::text).collect();
        if !self.ahead || self.sure {
            let prompt = self.prompt.as_deref().unwrap_or("");
            let is_plain = prompt.trim().chars().count() >= 2 || commands.knows(prompt);
            if is_plain && !prompt.trim().is_empty() {
                // Lists of completions, Ctrl-L and a resize let the prompt be drawn again further down.
                let same = |text: &String| text.starts_with(prompt) || text.trim_end() == prompt.trim_end();
                if self.resized {
                    // It may be drawn again anywhere.
                    let again = texts
                        .iter()
                        .enumerate()
                        .rev()
                        .find_map(|(line, text)| Some((line, text.rfind(prompt)?)));
                    if let Some((line, at)) = again {
                        return Some((line, lines[line].cell_of(at + prompt.len()), true));
                    }
                }
                let at_pos = by_pos.filter(|(line, cell)| lines[*line].before(*cell).ends_with(prompt));
                let again = texts.iter().rposition(same);
                if let Some((line, cell)) =
                    at_pos.filter(|(line, _)| again.is_none_or(|again| again <= *line))
                {
                    return Some((line, cell, self.marked || self.sure || self.is_usual(prompt, commands)));
                }
                if let Some(line) = again {
                    let known = self.marked || self.sure || self.is_usual(prompt, commands);
                    return Some((line, lines[line].cell_of(prompt.len()), known));
                }
                return by_pos.map(|(line, cell)| (line, cell, false));
            }
            let sure = self.marked || prompt.trim().is_empty() || self.is_usual(prompt, commands);
            return by_pos.map(|(line, cell)| (line, cell, sure));
        }
        for (line, text) in texts.iter().enumerate().rev() {
            if let Some(prompt) = commands.known_prefix(text) {
                return Some((line, lines[line].cell_of(prompt.len()), true));
            }
        }
        for (line, text) in texts.iter().enumerate().rev() {
            let text = text.trim_end();
            if let Some(prompt) =
                expected.filter(|text| !text.is_empty()).and_then(|typed| text.strip_suffix(typed))
                && is_promptish(prompt)
            {
                return Some((line, lines[line].cell_of(prompt.len()), true));
            }
        }
        let last = lines.len().checked_sub(1)?;
        let shaped = commands.prompts().find_map(|prompt| by_shape(&texts[last], prompt));
        match (shaped, by_pos) {
            (Some(bytes), _) => Some((last, lines[last].cell_of(bytes), false)),
            (None, by_pos) => by_pos.map(|(line, cell)| (line, cell, false)),
        }
    }

    fn is_usual(&self, prompt: &str, commands: &Commands) -> bool {
        is_promptish(prompt)
            || commands.knows(prompt)
            || commands.whose(prompt, self.adjacent) == Whose::Continues
    }

    /// Takes away what stands at the right end of the prompt's row.
    fn cut_right(&self, text: &mut String, cols: usize, rights: bool, cell: usize) {
        let trimmed = text.trim_end();
        if let Some(right) = &self.right
            && let Some(rest) = trimmed.strip_suffix(right.as_str())
            && (rest.is_empty() || rest.ends_with(' '))
        {
            *text = rest.trim_end().to_owned();
        } else if rights && let Some(gap) = trimmed.rfind("   ") {
            // It changed: what is set off and ends where right prompts do.
            let width = cell % cols + trimmed.chars().count();
            if width + 2 >= cols && width <= cols {
                *text = trimmed[..gap].trim_end().to_owned();
            }
        }
    }
}

/// Whether what stands on the screen is what was typed. The screen does not tell a blank from where nothing was
/// written. Of what was `torn` by a resize or by scrolling, the end has to be the same.
fn is_same(seen: &str, typed: &str, torn: bool) -> bool {
    let dense = |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect() };
    let (seen, typed) = (dense(seen), dense(typed));
    if seen == typed {
        return true;
    }
    let tail: String = {
        let mut tail: Vec<char> = seen.chars().rev().take(TAIL_CHARS).collect();
        tail.reverse();
        tail.into_iter().collect()
    };
    let is_clipped = seen.starts_with(">....") || seen.starts_with("<....");
    (torn || is_clipped) && tail.chars().count() == TAIL_CHARS && typed.ends_with(&tail)
}

/// So many characters at the end tell a torn line from another one.
const TAIL_CHARS: usize = 12;
