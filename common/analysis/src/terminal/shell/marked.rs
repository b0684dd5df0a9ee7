//! Entries that marks and hooks stand around.

use weir_common::recording::findings::{Confidence, Source};

use super::{Shell, reading::is_flush};
use crate::{
    Findings,
    terminal::{
        commands::{Entered, Place},
        grammar,
        grid::Grid,
        marks::Mark,
        transcript::Transcript,
    },
};

impl Shell {
    /// Marks in the output.
    pub(in crate::terminal) fn mark(
        &mut self,
        mark: Mark,
        place: Place,
        grid: &dyn Grid,
        transcript: &mut Transcript,
        out: &mut dyn Findings,
    ) {
        match mark {
            Mark::Prompt { continues } => {
                if !continues {
                    if !self.runs_are_marked {
                        self.run(None, Source::Osc133, place, grid, out);
                    }
                    self.parts.clear();
                    self.line = None;
                    self.commands.prompted(place);
                }
            }
            Mark::Entry => {
                let mut entry = self.new_entry(grid);
                entry.settle(grid, &self.commands);
                (entry.sure, entry.marked, entry.plain) = (true, true, !self.editor);
                if let Some(waiting) = &self.entry {
                    (entry.typed, entry.pasted, entry.enter) = (waiting.typed, waiting.pasted, waiting.enter);
                }
                entry.from = place;
                self.prompt_first &= !self.editor;
                self.entry = Some(entry);
            }
            Mark::CommandLine(text) => self.line = Some((text, Source::Osc633)),
            Mark::Run(text) => {
                self.runs_are_marked = true;
                if let Some(entry) = self.entry.take_if(|entry| entry.marked) {
                    self.accept(&entry, true, place, grid, transcript, out);
                }
                if let Some(text) = text {
                    self.line = Some((text, Source::Osc133));
                }
                self.run(None, Source::Osc133, place, grid, out);
            }
            Mark::Done(code) => self.commands.done(code, place, out),
            Mark::Cwd(cwd) => self.commands.set_cwd(cwd),
            Mark::WarpRun(text) => {
                self.hooked = false;
                self.run(Some(text), Source::WarpDcs, place, grid, out);
            }
            Mark::WarpDone(code) => self.commands.done(code, place, out),
            Mark::WarpPrompt { exit_code, cwd } => {
                self.commands.done(exit_code, place, out);
                self.commands.prompted(place);
                self.hooked = true;
                if let Some(entry) = &mut self.entry {
                    entry.hooked = true;
                }
                self.parts.clear();
                if let Some(cwd) = cwd {
                    self.commands.set_cwd(cwd);
                }
            }
        }
    }

    /// Marks say that a command runs: what they tell, or what stood on the screen.
    fn run(
        &mut self,
        text: Option<String>,
        source: Source,
        place: Place,
        grid: &dyn Grid,
        out: &mut dyn Findings,
    ) {
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        let first = parts.next();
        let told = text.map(|text| (text, source)).or_else(|| self.line.take());
        let (mut pasted, mut enter, mut prompt, mut from) = (false, None, String::new(), self.settled);
        let mut confidence = Confidence::High;
        let mut seen = String::new();
        let mut set_in = false;
        if let Some(part) = first {
            (prompt, seen, from) = (part.read.prompt, part.read.text, part.from);
            (pasted, enter) = (part.pasted, part.enter);
            set_in = part.read.set_in;
            confidence = part.read.confidence;
        }
        for part in parts {
            seen.push('\n');
            seen.push_str(&part.read.text);
            pasted |= part.pasted;
            enter = part.enter.or(enter);
            confidence = confidence.max(part.read.confidence);
        }
        let (text, source, confidence) = match told {
            Some((text, source)) => (text, source, Confidence::Exact),
            None => (seen, source, confidence),
        };
        if text.trim().is_empty() || self.commands.told(&text, source) {
            return;
        }
        let is_read = confidence != Confidence::Exact && !set_in;
        let texts = match is_read && !self.prompt_first && is_flush(&text) {
            true => grammar::commands(&text),
            false => vec![text],
        };
        for text in texts {
            let prompt = prompt.clone();
            let adjacent = false;
            let entered =
                Entered { text, prompt, adjacent, source, confidence, pasted, from, run: place, enter };
            self.commands.enter(entered, out);
        }
        self.taken = Some(grid.cursor());
        self.typed.clear();
    }
}
