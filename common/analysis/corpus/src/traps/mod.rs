//! What is done in a session: the traps, each a generator.

mod basic;
mod editing;
mod programs;

use anyhow::Result;

use crate::{
    Plan, Transcript,
    prompt::Wish,
    random::Chance,
    session::{self, Session, Wishes},
    shells::Shell,
};

/// A kind of session.
pub struct Trap {
    /// Its name.
    pub name: &'static str,
    /// The shells in which there is such a thing.
    pub shells: &'static [Shell],
    wishes: Wishes,
    run: fn(&mut Session) -> Result<()>,
    /// Nothing is typed: the client asks for a command.
    pub(crate) is_exec: bool,
}

impl Trap {
    pub(crate) fn record(&self, plan: &Plan, chance: Chance) -> Result<Transcript> {
        if self.is_exec {
            return session::exec(plan.shell, chance);
        }
        let mut session = Session::start(plan.shell, plan.marks, self.wishes, chance)?;
        (self.run)(&mut session)?;
        session.finish()
    }

    const fn new(name: &'static str, shells: &'static [Shell], run: fn(&mut Session) -> Result<()>) -> Self {
        let prompt = Wish { lines: false, right: false, short: false };
        Self {
            name,
            shells,
            wishes: Wishes { prompt, vi: false, exec: false, unprivileged: false, size: None },
            run,
            is_exec: false,
        }
    }

    const fn with_prompt(mut self, lines: bool, right: bool) -> Self {
        self.wishes.prompt = Wish { lines, right, short: false };
        self
    }

    const fn with_size(mut self, cols: u16, rows: u16) -> Self {
        self.wishes.size = Some((cols, rows));
        self
    }

    const fn asked_for(mut self) -> Self {
        self.wishes.exec = true;
        self
    }

    const fn exec(mut self) -> Self {
        self.is_exec = true;
        self
    }

    const fn unprivileged(mut self) -> Self {
        self.wishes.unprivileged = true;
        self
    }

    const fn with_vi(mut self) -> Self {
        self.wishes.vi = true;
        self
    }
}

const EVERY: &[Shell] = &Shell::ALL;
/// Shells with a line editor.
const EDITING: &[Shell] = &[Shell::Bash, Shell::Zsh, Shell::Fish];
/// Shells that know here-documents.
const POSIX: &[Shell] = &[Shell::Bash, Shell::Zsh, Shell::Dash];

/// All of them.
pub static TRAPS: &[Trap] = &[
    Trap::new("plain", EVERY, basic::plain),
    Trap::new("wrapping", EVERY, basic::wrapping),
    Trap::new("scroll_off", EVERY, basic::scroll_off),
    Trap::new("multi_line_prompt", EVERY, basic::plain).with_prompt(true, false),
    Trap::new("right_prompt", &[Shell::Zsh, Shell::Fish], basic::plain).with_prompt(false, true),
    Trap::new("multi_line", EVERY, basic::multi_line),
    Trap::new("here_document", POSIX, basic::here_document),
    Trap::new("continuation", EVERY, basic::continuation),
    Trap::new("empty_enter", EVERY, basic::empty_enter),
    Trap::new("comments", EVERY, basic::comments),
    Trap::new("utf8_wide", EVERY, basic::utf8_wide),
    Trap::new("ctrl_c", EVERY, basic::ctrl_c),
    Trap::new("paste_plain", EVERY, basic::paste_plain),
    Trap::new("type_ahead", EVERY, basic::type_ahead),
    Trap::new("paste_bracketed", EDITING, editing::paste_bracketed),
    Trap::new("line_editing", EVERY, editing::line_editing),
    Trap::new("vi_mode", EDITING, editing::vi_mode).with_vi(),
    Trap::new("history_up", EDITING, editing::history_up),
    Trap::new("reverse_search", &[Shell::Bash, Shell::Zsh], editing::reverse_search),
    Trap::new("completion", EDITING, editing::completion),
    Trap::new("resize_mid_line", EVERY, editing::resize_mid_line),
    Trap::new("history_expansion", &[Shell::Bash, Shell::Zsh], editing::history_expansion),
    Trap::new("autosuggestions", &[Shell::Fish], editing::autosuggestions),
    Trap::new("exec", &[Shell::Bash, Shell::Zsh], basic::plain).exec(),
    Trap::new("exec_shell", &[Shell::Bash, Shell::Zsh], basic::plain).asked_for(),
    Trap::new("cat_stdin", EVERY, programs::cat_stdin),
    Trap::new("password", EVERY, programs::password).unprivileged(),
    Trap::new("full_screen", EVERY, programs::full_screen),
    Trap::new("nested_shell", EDITING, programs::nested_shell),
    Trap::new("tmux", EDITING, programs::tmux).with_size(140, 40),
    Trap::new("screen", EDITING, programs::screen),
    Trap::new("repl_python", EDITING, programs::repl_python),
    Trap::new("repl_sqlite", EDITING, programs::repl_sqlite),
    Trap::new("background_jobs", EVERY, programs::background_jobs),
    Trap::new("noisy_background", EVERY, programs::noisy_background),
    Trap::new("clear", EVERY, programs::clear),
    Trap::new("invalid_bytes", EVERY, programs::invalid_bytes),
    Trap::new("crlf", EVERY, programs::crlf),
];

/// Those that shells with marks go through.
pub(crate) const MARKED: &[&str] = &[
    "plain",
    "wrapping",
    "scroll_off",
    "multi_line_prompt",
    "right_prompt",
    "multi_line",
    "here_document",
    "continuation",
    "empty_enter",
    "comments",
    "utf8_wide",
    "ctrl_c",
    "paste_plain",
    "paste_bracketed",
    "type_ahead",
    "line_editing",
    "history_up",
    "completion",
    "resize_mid_line",
    "full_screen",
    "clear",
];
