//! Shells: how each is started, and how each says what it ran.
//!
//! bash, zsh and fish write to a log from their own hooks; dash has none, so its system calls are read. Nothing of it
//! is shown on the terminal.

mod bash;
mod dash;
mod fish;
mod log;
pub(crate) mod marks;
mod python;
mod zsh;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{prompt::Prompt, shells::marks::Marks};

/// Where Python finds what it runs first.
const PYTHON_STARTUP: &str = ".startup.py";

/// What bash, if told so, and zsh, always, run before a command that they are started for.
const EXEC_STARTUP: &str = ".zshenv";

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
    /// Debian's `sh`: no line editor.
    Dash,
}

impl Shell {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bash, Self::Zsh, Self::Fish, Self::Dash];

    /// Its program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Dash => "dash",
        }
    }
}

/// What a shell, or an interpreter in it, says that it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// The command.
    pub text: String,
    /// The interpreter, if it was not the shell.
    pub repl: Option<String>,
    /// Whether nobody minds if it is not found: it ran nothing, as a comment does.
    pub optional: bool,
    /// What it ended with, where the shell told.
    pub exit_code: Option<i32>,
    /// Where the shell was when it began.
    pub cwd: Option<String>,
}

/// A shell's home: its startup files and its log.
pub(crate) struct Home {
    pub(crate) shell: Shell,
    directory: tempfile::TempDir,
    log: tempfile::TempDir,
    second_prompt: String,
}

/// What a shell is started with.
pub(crate) struct Setup<'a> {
    pub(crate) prompt: &'a Prompt,
    pub(crate) marks: Marks,
    /// Keys as in vi.
    pub(crate) vi: bool,
}

impl Home {
    /// Writes a shell's startup files.
    pub(crate) fn new(shell: Shell, setup: &Setup<'_>) -> Result<Self> {
        let directory = || tempfile::Builder::new().prefix("corpus-").tempdir().context("making a home");
        let home = Self {
            shell,
            directory: directory()?,
            log: directory()?,
            second_prompt: setup.prompt.second.clone(),
        };
        let log = home.log_path();
        let files = match shell {
            Shell::Bash => {
                vec![
                    (".bashrc", bash::startup(setup, &log)),
                    (".bash_profile", ". ~/.bashrc\n".to_owned()),
                    (EXEC_STARTUP, bash::exec_startup(&log)),
                    (".inputrc", bash::INPUTRC.to_owned()),
                ]
            }
            Shell::Zsh => {
                vec![(".zshrc", zsh::startup(setup, &log)), (EXEC_STARTUP, zsh::exec_startup(&log))]
            }
            Shell::Fish => vec![
                (".config/fish/config.fish", fish::startup(setup, &log)),
                // Where this directory is missing, it makes completions out of all manual pages.
                (".local/share/fish/generated_completions/none.fish", String::new()),
            ],
            Shell::Dash => vec![(".shrc", dash::startup(setup))],
        };
        for (name, text) in files {
            home.write(name, &text)?;
        }
        home.write(PYTHON_STARTUP, &python::startup(&log))?;
        Ok(home)
    }

    /// Writes a file below the home.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).context("making a directory")?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What the shell writes to.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.log.path().join("log")
    }

    /// The command that starts it.
    pub(crate) fn command(&self) -> pty_process::blocking::Command {
        let program = if self.shell == Shell::Dash { "strace" } else { self.shell.name() };
        let command = self.environment(pty_process::blocking::Command::new(program));
        match self.shell {
            Shell::Bash | Shell::Zsh | Shell::Fish => command.arg("-i"),
            Shell::Dash => command.args(dash::TRACED).arg("-o").arg(self.log_path()).args(["dash", "-i"]),
        }
    }

    /// The command that starts it for an exec request, as sshd does.
    pub(crate) fn exec(&self, text: &str) -> pty_process::blocking::Command {
        let command = self.environment(pty_process::blocking::Command::new(self.shell.name()));
        command.env("BASH_ENV", self.path().join(EXEC_STARTUP)).args(["-c", text])
    }

    /// Nobody's home from now on if it was root's, and the command that starts the shell as them.
    pub(crate) fn give_to_nobody(&self) -> Result<pty_process::blocking::Command> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(self.command());
        }
        let nobody = nix::unistd::User::from_name("nobody")?.context("there is a user nobody")?;
        for directory in [self.path(), self.log.path()] {
            give(directory, &nobody)?;
        }
        let command = self.command().env("USER", "nobody").env("LOGNAME", "nobody");
        Ok(command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()))
    }

    /// A statement that an interpreter got, which doesn't say so itself.
    pub(crate) fn log_statement(&self, interpreter: &str, text: &str) -> Result<()> {
        let mut log =
            std::fs::OpenOptions::new().append(true).open(self.log_path()).context("opening the log")?;
        std::io::Write::write_all(&mut log, format!("R\x1f{interpreter}\x1f{text}\x1e").as_bytes())
            .context("logging")
    }

    /// A command in this home that knows of nothing else.
    pub(crate) fn environment(
        &self,
        command: pty_process::blocking::Command,
    ) -> pty_process::blocking::Command {
        command
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("ENV", self.path().join(".shrc"))
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8")
            .env("PYTHONSTARTUP", self.path().join(PYTHON_STARTUP))
            .env("TMUX_TMPDIR", self.path())
            .env("SCREENDIR", self.path().join(".screen"))
            .env("USER", "root")
            .env("LOGNAME", "root")
            .env("SHELL", format!("/usr/bin/{}", self.shell.name()))
    }

    /// How often the shell has prompted for a command.
    pub(crate) fn prompts(&self) -> usize {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        match self.shell {
            Shell::Dash => dash::prompts(&log, &self.second_prompt),
            _ => log::prompts(&log),
        }
    }

    /// What was run, in the order in which it began.
    pub(crate) fn truth(&self) -> Result<Vec<Truth>> {
        let bytes = match std::fs::read(self.log_path()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.context("reading the shell's log")?,
        };
        match self.shell {
            Shell::Dash => dash::truth(&bytes, &self.second_prompt),
            _ => Ok(log::truth(&bytes)),
        }
    }
}

impl Truth {
    /// A command of the shell.
    pub(crate) fn shell(text: &str) -> Self {
        // Nothing is run by a line that has only a comment on it.
        let optional = text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty());
        Self { text: text.to_owned(), repl: None, optional, exit_code: None, cwd: None }
    }
}

/// A text in single quotes, as bash, zsh and dash take it.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn give(path: &Path, to: &nix::unistd::User) -> Result<()> {
    nix::unistd::chown(path, Some(to.uid), Some(to.gid))
        .with_context(|| format!("giving away {}", path.display()))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path).context("reading a directory")? {
            give(&entry.context("reading a directory")?.path(), to)?;
        }
    }
    Ok(())
}
