//! Lines that are typed before their prompt is drawn.

use weir_common::recording::findings::{Confidence, Source};

use super::{ECHO_EVENTS_MAX, ECHO_ROWS_MAX, Shell, TYPED_MAX, Typed};
use crate::{
    Findings,
    terminal::{
        commands::{Entered, Place},
        grid::Grid,
        interpreters::Starts,
        transcript::Transcript,
    },
};

impl Shell {
    pub(super) fn push_typed(&mut self, pasted: bool, grid: &dyn Grid) {
        let text = self.keys.take_line();
        if self.typed.len() == TYPED_MAX {
            self.typed.pop_front();
        }
        if let Some(text) = text {
            let row = self.typed.back().map_or_else(|| grid.cursor().row, |typed| typed.row);
            self.typed.push_back(Typed { text, row, entered: grid.cursor(), seen: false, events: 0, pasted });
        }
    }

    pub(super) fn look_for_echo(&mut self, grid: &dyn Grid) {
        let last = grid.cursor().row;
        for typed in self.typed.iter_mut().filter(|typed| !typed.seen) {
            let first = typed.row.max(last.saturating_sub(ECHO_ROWS_MAX));
            let (mut text, mut before) = (String::new(), 0);
            for row in first..=last {
                let cells = grid.row(row);
                if row == typed.entered.row {
                    let col = typed.entered.col;
                    before = text.len() + cells.as_ref().map(|row| row.before(col).len()).unwrap_or_default();
                }
                text.push_str(&cells.map(|row| row.before(usize::MAX)).unwrap_or_default());
            }
            // An echo ends where the cursor was at Enter, or behind: what stands before that was there already, and may
            // be the same as a password by chance.
            let mut found = text.match_indices(typed.text.as_str());
            typed.seen = typed.text.is_empty() || found.any(|(at, text)| at + text.len() >= before);
            typed.events += 1;
        }
        self.typed.retain(|typed| typed.seen || typed.events < ECHO_EVENTS_MAX);
    }

    /// Prompts that were drawn and left without a key took lines that were typed before. A row may hold several: a
    /// command that prints nothing leaves its prompt where the next one is drawn.
    pub(super) fn left(
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
}
