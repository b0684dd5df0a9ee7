//! A session with one shell: what a person does, and what is known afterwards.

use std::time::Duration;

use anyhow::{Context as _, Result};
use weir_common::recording::What;

use crate::{
    prompt::{Prompt, Wish},
    random::Chance,
    shells::{Home, Setup, Shell, Truth, marks::Marks},
    terminal::{Recorded, Terminal},
    words,
};

/// The Enter key.
pub(crate) const ENTER: &[u8] = b"\r";
/// Ctrl-C.
pub(crate) const CTRL_C: &[u8] = b"\x03";
/// Ctrl-D.
pub(crate) const CTRL_D: &[u8] = b"\x04";

/// What is left of a session.
pub struct Transcript {
    /// What passed, in order.
    pub recorded: Vec<Recorded>,
    /// What ran.
    pub truth: Vec<Truth>,
    /// What must not occur in any finding.
    pub secrets: Vec<String>,
    /// Whether commands have to be known to have had the whole screen, by their first word.
    pub full_screen: Vec<String>,
}

/// What a session is to be like.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wishes {
    pub(crate) prompt: Wish,
    pub(crate) vi: bool,
    /// The shell is asked for by an exec request.
    pub(crate) exec: bool,
    /// As somebody who is not root, and may become it with a password only.
    pub(crate) unprivileged: bool,
    /// The window's size, if chance is not to choose it.
    pub(crate) size: Option<(u16, u16)>,
}

/// A command that the client asks for, with a pty.
pub(crate) fn exec(shell: Shell, mut chance: Chance) -> Result<Transcript> {
    let prompt = Prompt::generate(&mut chance, Wish::default());
    let home = Home::new(shell, &Setup { prompt: &prompt, marks: Marks::None, vi: false })?;
    let text = match chance.number(0, 2) {
        0 => words::multi_line(&mut chance, shell).join("\n"),
        1 => words::long_command(&mut chance, shell, 300),
        _ => words::command(&mut chance, shell),
    };
    let recorded = Terminal::start(home.exec(&text), 80, 24, Some(&text))?.finish()?;
    let mut truth = home.truth()?;
    let status = recorded.iter().find_map(|recorded| match recorded.event.what {
        What::ExitStatus { status } => i32::try_from(status).ok(),
        _ => None,
    });
    truth.iter_mut().for_each(|truth| truth.exit_code = status);
    Ok(Transcript { recorded, truth, secrets: Vec::new(), full_screen: Vec::new() })
}

/// A session that is under way.
pub(crate) struct Session {
    pub(crate) terminal: Terminal,
    pub(crate) home: Home,
    pub(crate) chance: Chance,
    pub(crate) shell: Shell,
    pub(crate) cols: u16,
    pub(crate) rows: u16,
    pub(crate) secrets: Vec<String>,
    pub(crate) full_screen: Vec<String>,
    prompts: usize,
}

impl Session {
    /// Starts a shell and waits for its first prompt.
    pub(crate) fn start(shell: Shell, marks: Marks, wishes: Wishes, mut chance: Chance) -> Result<Self> {
        let prompt = Prompt::generate(&mut chance, wishes.prompt);
        let (cols, rows) = wishes.size.unwrap_or_else(|| {
            let narrow = if chance.once_in(4) { (30, 60) } else { (60, 200) };
            let size = |from, to, chance: &mut Chance| u16::try_from(chance.number(from, to)).unwrap_or(80);
            (size(narrow.0, narrow.1, &mut chance), size(10, 60, &mut chance))
        });
        let home = Home::new(shell, &Setup { prompt: &prompt, marks, vi: wishes.vi })?;
        let exec = wishes.exec.then(|| format!("{} -i", shell.name()));
        let command = match &exec {
            Some(exec) => home.exec(exec),
            None if wishes.unprivileged => home.give_to_nobody()?,
            None => home.command(),
        };
        let terminal = Terminal::start(command, cols, rows, exec.as_deref())?;
        let mut session = Self {
            terminal,
            home,
            chance,
            shell,
            cols,
            rows,
            secrets: Vec::new(),
            full_screen: Vec::new(),
            prompts: 0,
        };
        session.prompted().context("at the beginning")?;
        Ok(session)
    }

    /// Waits until the shell prompts for a command and has done all it does there.
    pub(crate) fn prompted(&mut self) -> Result<()> {
        let (home, before) = (&self.home, self.prompts);
        self.terminal.until("the shell prompts", |_| home.prompts() > before)?;
        if self.shell != Shell::Dash {
            // Its hooks come before its line editor; what is typed between them is read in another mode, in which
            // some keys mean something else.
            self.terminal.until("the line editor reads keys", Terminal::is_raw)?;
        }
        self.terminal.settle()?;
        self.prompts = self.home.prompts();
        Ok(())
    }

    /// How often the shell has prompted.
    pub(crate) fn prompts(&self) -> usize {
        self.prompts
    }

    /// Waits until the shell has prompted so many times more than before.
    pub(crate) fn prompted_times(&mut self, before: usize, times: usize) -> Result<()> {
        while self.prompts < before + times {
            self.prompted()?;
        }
        Ok(())
    }

    /// Waits for what Ctrl-C leads to: not every shell prompts by the same way then.
    pub(crate) fn interrupted(&mut self) -> Result<()> {
        self.terminal.take(1000)?;
        self.terminal.settle()?;
        let from = self.terminal.sent_at();
        if self.shell == Shell::Fish && !self.terminal.shown()[from..].windows(2).any(|shown| shown == b"^C")
        {
            // It misses the signal at times; a person presses the key again, which does no harm at an empty prompt.
            self.key(CTRL_C)?;
        }
        self.prompts = self.home.prompts();
        Ok(())
    }

    /// Types text as a person does.
    pub(crate) fn type_in(&mut self, text: &str) -> Result<()> {
        let Self { terminal, chance, .. } = self;
        terminal.type_slowly(text, || chance.size(1, 6))
    }

    /// Presses a key, and waits until its effect is shown.
    pub(crate) fn key(&mut self, key: &[u8]) -> Result<()> {
        self.terminal.send(key)?;
        self.terminal.take(50)?;
        self.terminal.settle()
    }

    /// Presses Enter and waits for the next prompt.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.terminal.send(ENTER)?;
        self.prompted()
    }

    /// Types a command and has it run.
    pub(crate) fn run(&mut self, command: &str) -> Result<()> {
        self.type_in(command)?;
        self.enter().with_context(|| format!("after {command:?}"))
    }

    /// Types a command that goes on, and waits until it has the terminal.
    pub(crate) fn begin(&mut self, command: &str) -> Result<()> {
        self.type_in(command)?;
        self.terminal.send(ENTER)?;
        self.terminal.until("the command has the terminal", Terminal::is_lent)?;
        self.terminal.settle().with_context(|| format!("in {command:?}"))
    }

    /// Runs any command in a shell that does not have the terminal itself.
    pub(crate) fn run_any_inside(&mut self) -> Result<()> {
        self.run_any()?;
        // What stands between needs a moment for the rest.
        self.watch_ms(60)
    }

    /// Waits until something is shown that was not shown before Enter was pressed.
    pub(crate) fn shown(&mut self, text: &str) -> Result<()> {
        let from = self.terminal.sent_at();
        let found = |shown: &[u8]| shown.windows(text.len()).any(|window| window == text.as_bytes());
        self.terminal.until(text, |terminal| found(&terminal.shown()[from..]))?;
        self.terminal.settle()
    }

    /// Types a command of several lines and has it run.
    pub(crate) fn run_lines(&mut self, lines: &[String]) -> Result<()> {
        let Some((last, first)) = lines.split_last() else { return Ok(()) };
        for line in first {
            self.type_in(line)?;
            self.key(ENTER)?;
        }
        self.run(last)
    }

    /// Runs any command.
    pub(crate) fn run_any(&mut self) -> Result<()> {
        let command = words::command(&mut self.chance, self.shell);
        self.run(&command)
    }

    /// Shows nothing to the user for a while, as sleeping commands do.
    pub(crate) fn watch_ms(&mut self, ms: u64) -> Result<()> {
        self.terminal.watch(Duration::from_millis(ms))
    }

    /// Leaves the shell, by its command or by the end of input.
    pub(crate) fn finish(mut self) -> Result<Transcript> {
        if !self.terminal.is_gone() {
            if self.chance.once_in(2) {
                self.terminal.send(CTRL_D)?;
            } else {
                self.type_in("exit")?;
                self.terminal.send(ENTER)?;
            }
        }
        let Self { terminal, home, secrets, full_screen, .. } = self;
        let recorded = terminal.finish()?;
        Ok(Transcript { recorded, truth: home.truth()?, secrets, full_screen })
    }
}
