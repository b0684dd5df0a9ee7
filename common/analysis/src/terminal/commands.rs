//! The commands that run: in a shell, in what that started, and so on inwards. Says each one when it is over.

use std::collections::VecDeque;

use weir_common::{
    recording::findings::{COMMAND_CHARS_MAX, Command, Confidence, Evidence, Source, Span},
    session::ChannelNo,
};

use super::{
    grammar,
    interpreters::{self, Starts},
    prompt::{is_promptish, is_similar},
};
use crate::{At, Findings};

/// The most shells and interpreters within each other that are told apart.
const LEVELS_MAX: usize = 16;
/// The most prompts of one shell that are remembered: those with the directory in them change.
const PROMPTS_MAX: usize = 16;
/// The most times that one command is said to have had the whole screen.
const FULL_SCREEN_MAX: usize = 1000;

/// A place in the output: when it came, and how many bytes came before.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) at: At,
    pub(super) offset: u64,
}

/// A command line that was run.
pub(super) struct Entered {
    pub(super) text: String,
    /// The prompt's last line.
    pub(super) prompt: String,
    /// Whether nothing was printed between the last entry and this prompt.
    pub(super) adjacent: bool,
    pub(super) source: Source,
    pub(super) confidence: Confidence,
    pub(super) pasted: bool,
    /// Where its prompt was.
    pub(super) from: Place,
    /// Where it was run.
    pub(super) run: Place,
    /// When Enter was pressed, if that is known.
    pub(super) enter: Option<At>,
}

/// Who shows a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The innermost one asks for more of its command.
    Continues,
    /// One of those that are known.
    Known(usize),
    /// What the innermost command started. With the interpreter's name.
    Inner(Option<String>),
    /// The innermost one, with another prompt than before.
    Changed,
}

/// What runs.
pub(super) struct Commands {
    ch: ChannelNo,
    pane: Option<String>,
    levels: Vec<Level>,
    /// Where the last prompt came.
    prompted: Option<Place>,
    cwd: Option<String>,
}

/// A shell or an interpreter.
#[derive(Default)]
struct Level {
    prompts: VecDeque<String>,
    repl: Option<String>,
    open: Option<Open>,
}

struct Open {
    command: Command,
    marked: bool,
}

impl Commands {
    pub(super) fn new(ch: ChannelNo, pane: Option<String>) -> Self {
        Self { ch, pane, levels: vec![Level::default()], prompted: None, cwd: None }
    }

    fn top(&self) -> &Level {
        // There is always one: the shell itself.
        &self.levels[self.levels.len() - 1]
    }

    /// The command that runs innermost.
    pub(super) fn running(&self) -> Option<&str> {
        let open = self.levels.iter().rev().find_map(|level| level.open.as_ref())?;
        Some(&open.command.text)
    }

    /// What the innermost command may have started.
    pub(super) fn started(&self) -> Starts {
        match &self.top().open {
            Some(open) => interpreters::started_by(&open.command.text),
            None => Starts::Nothing,
        }
    }

    /// Whether nothing was run in the innermost shell yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.top().prompts.is_empty() && self.levels.len() == 1
    }

    /// Whether a command was begun that a shell would ask more of.
    pub(super) fn is_incomplete(&self) -> bool {
        let open = self.top().open.as_ref();
        open.is_some_and(|open| grammar::is_incomplete(&open.command.text))
    }

    /// Whether this very prompt was seen before.
    pub(super) fn knows(&self, prompt: &str) -> bool {
        self.levels.iter().any(|level| level.prompts.iter().any(|known| known == prompt))
    }

    /// The longest known prompt with which this begins.
    pub(super) fn known_prefix(&self, text: &str) -> Option<&str> {
        let known = self.levels.iter().flat_map(|level| &level.prompts);
        known
            .filter(|prompt| !prompt.trim().is_empty() && text.starts_with(prompt.as_str()))
            .max_by_key(|prompt| prompt.len())
            .map(String::as_str)
    }

    /// The longest known prompt with which this ends.
    pub(super) fn known_suffix(&self, text: &str) -> Option<&str> {
        let known = self.levels.iter().flat_map(|level| &level.prompts);
        known
            .filter(|prompt| prompt.trim().len() > 1 && text.ends_with(prompt.as_str()))
            .max_by_key(|prompt| prompt.len())
            .map(String::as_str)
    }

    /// Whether the innermost one is a shell.
    pub(super) fn is_shell(&self) -> bool {
        self.top().repl.is_none() && !matches!(self.started(), Starts::Repl(_))
    }

    /// The prompts of the innermost shell, the last one first.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().rev().flat_map(|level| level.prompts.iter().rev()).map(String::as_str)
    }

    /// Whose prompt this is.
    pub(super) fn whose(&self, prompt: &str, adjacent: bool) -> Whose {
        let top = self.top();
        let last = self.levels.len() - 1;
        let is_known = top.prompts.iter().any(|known| known == prompt);
        if let Some(open) = &top.open {
            let incomplete = grammar::is_incomplete(&open.command.text);
            let likely = interpreters::continues(prompt, top.repl.as_deref());
            let starts = interpreters::started_by(&open.command.text) != Starts::Nothing;
            let more = match (&top.repl, is_known) {
                (Some(_), _) => likely && !is_known,
                (None, true) => incomplete && likely && adjacent,
                (None, false) => {
                    (likely && !starts && (adjacent || incomplete))
                        || (incomplete && adjacent && !self.is_like_top(prompt))
                }
            };
            if more {
                return Whose::Continues;
            }
        }
        if prompt.trim().is_empty() {
            return Whose::Known(last);
        }
        let known = |level: &Level| level.prompts.iter().any(|known| known == prompt);
        if let Some(level) = self.levels.iter().rposition(known) {
            return Whose::Known(level);
        }
        let named = interpreters::prompting(prompt).map(str::to_owned);
        if top.open.is_some() {
            if top.prompts.len() > 1 && self.is_like_top(prompt) {
                return Whose::Known(last);
            }
            match self.started() {
                Starts::Repl(name) => return Whose::Inner(named.or_else(|| Some(name.to_owned()))),
                Starts::Shell => return Whose::Inner(named),
                Starts::Nothing if named.is_some() && named != top.repl => return Whose::Inner(named),
                Starts::Nothing => {}
            }
        }
        if let Some(level) = self.levels.iter().rposition(|level| level.is_like(prompt)) {
            return Whose::Known(level);
        }
        let end = |text: &str| text.trim_end().chars().next_back();
        let others = top.prompts.iter().all(|known| end(known) != end(prompt));
        if top.open.is_some() && others && end(prompt) == Some('>') {
            return Whose::Inner(Some("?".to_owned()));
        }
        Whose::Changed
    }

    fn is_like_top(&self, prompt: &str) -> bool {
        self.top().is_like(prompt)
    }

    /// Marks told where commands run.
    pub(super) fn set_cwd(&mut self, cwd: String) {
        self.cwd = Some(cwd);
    }

    /// A prompt was drawn here.
    pub(super) fn prompted(&mut self, place: Place) {
        self.prompted = Some(place);
    }

    /// A command line was run.
    pub(super) fn enter(&mut self, entered: Entered, out: &mut dyn Findings) {
        let whose = self.whose(&entered.prompt, entered.adjacent);
        let place = self.prompted.take().unwrap_or(entered.from);
        match whose {
            Whose::Continues => return self.go_on(entered),
            Whose::Known(level) => self.close(level, Some(place), out),
            Whose::Changed => self.close(self.levels.len() - 1, Some(place), out),
            Whose::Inner(repl) => {
                if self.levels.len() == LEVELS_MAX {
                    self.close(LEVELS_MAX - 1, Some(place), out);
                    self.levels.truncate(LEVELS_MAX - 1);
                }
                self.levels.push(Level { repl, ..Level::default() });
            }
        }
        self.learn(&entered.prompt);
        let ch = self.ch;
        let (pane, cwd) = (self.pane.clone(), self.cwd.clone());
        let Some(level) = self.levels.last_mut() else { return };
        let t = entered.enter.unwrap_or(entered.run.at).t;
        let command = Command {
            n: 0,
            ch,
            span: Span { t, t_end: None, started_at: None, ended_at: None },
            text: bounded(entered.text),
            source: entered.source,
            confidence: entered.confidence,
            exit_code: None,
            pasted: entered.pasted,
            masked: 0,
            cwd,
            repl: level.repl.clone(),
            pane,
            full_screen: Vec::new(),
            evidence: Evidence {
                first_seq: entered.from.at.seq,
                last_seq: entered.run.at.seq,
                from: entered.from.offset,
                to: entered.run.offset,
            },
        };
        level.open = Some(Open { command, marked: entered.source != Source::Screen });
    }

    /// Remembers a prompt of the innermost shell.
    fn learn(&mut self, prompt: &str) {
        let Some(level) = self.levels.last_mut() else { return };
        if prompt.trim().is_empty() {
            return;
        }
        level.prompts.retain(|known| known != prompt);
        level.prompts.push_back(prompt.to_owned());
        if level.prompts.len() > PROMPTS_MAX {
            level.prompts.pop_front();
        }
    }

    /// More of the innermost command was entered.
    fn go_on(&mut self, entered: Entered) {
        let Some(open) = self.levels.last_mut().and_then(|level| level.open.as_mut()) else { return };
        let command = &mut open.command;
        if command.text.len() < COMMAND_CHARS_MAX {
            command.text.push('\n');
            command.text.push_str(&entered.text);
            command.text = bounded(std::mem::take(&mut command.text));
        }
        command.confidence = command.confidence.max(entered.confidence);
        command.pasted |= entered.pasted;
        command.span.t = entered.enter.unwrap_or(entered.run.at).t;
        command.evidence.last_seq = entered.run.at.seq;
        command.evidence.to = entered.run.offset;
    }

    /// The innermost command was given up before it ran: a prompt for more of it was left without Enter.
    pub(super) fn abandon(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.open = None;
        }
    }

    /// What the shell made of the innermost command.
    pub(super) fn expanded(&mut self, text: String) {
        if let Some(open) = self.levels.last_mut().and_then(|level| level.open.as_mut()) {
            open.command.text = bounded(text);
        }
    }

    /// Marks say that a command ended.
    pub(super) fn done(&mut self, exit_code: Option<i32>, place: Place, out: &mut dyn Findings) {
        let marked = |level: &Level| level.open.as_ref().is_some_and(|open| open.marked);
        let Some(level) = self.levels.iter().rposition(marked) else { return };
        self.close(level + 1, Some(place), out);
        if let Some(open) = &mut self.levels[level].open {
            open.command.exit_code = exit_code;
        }
        self.close(level, Some(place), out);
    }

    /// The innermost command had the whole screen.
    pub(super) fn full_screen(&mut self, span: Span) {
        if let Some(open) = self.levels.iter_mut().rev().find_map(|level| level.open.as_mut())
            && open.command.full_screen.len() < FULL_SCREEN_MAX
        {
            open.command.full_screen.push(span);
        }
    }

    /// What runs at this level and further in is over; this level becomes the innermost.
    fn close(&mut self, level: usize, place: Option<Place>, out: &mut dyn Findings) {
        while self.levels.len() > level {
            let Some(mut last) = self.levels.pop() else { break };
            if let Some(open) = last.open.take() {
                let mut command = open.command;
                // An empty line ends a block in interpreters.
                command.text.truncate(command.text.trim_end_matches('\n').len());
                if let Some(place) = place {
                    command.span.t_end = Some(place.at.t.max(command.span.t));
                    command.evidence.last_seq = command.evidence.last_seq.max(place.at.seq);
                    command.evidence.to = command.evidence.to.max(place.offset);
                }
                out.command(command);
            }
            if self.levels.len() == level {
                self.levels.push(last);
                break;
            }
        }
    }

    /// The terminal is gone, or the recording ends (`end` is none then).
    pub(super) fn finish(mut self, end: Option<Place>, out: &mut dyn Findings) {
        // A prompt that was not used ended what ran before it.
        let end = self.prompted.or(end);
        self.close(0, end, out);
    }
}

impl Level {
    fn is_like(&self, prompt: &str) -> bool {
        is_promptish(prompt) && self.prompts.iter().any(|known| is_similar(known, prompt))
    }
}

fn bounded(text: String) -> String {
    match text.char_indices().nth(COMMAND_CHARS_MAX - 1) {
        Some((at, _)) if text[at..].chars().nth(1).is_some() => format!("{}…", &text[..at]),
        _ => text,
    }
}
