//! Findings in memory, all of them: for sessions that are known to be short, as tests have.

use weir_common::recording::findings::{Command, FileAccess, Forward};

use crate::{Findings, TranscriptLine};

/// Keeps what is found, without a bound.
#[derive(Clone, Default, PartialEq)]
pub struct Found {
    /// Commands, as they ended.
    pub commands: Vec<Command>,
    /// What was done to files.
    pub files: Vec<FileAccess>,
    /// What was forwarded.
    pub forwards: Vec<Forward>,
    /// Lines of terminals, as they became final.
    pub lines: Vec<TranscriptLine>,
}

impl Found {
    /// What the commands say.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        self.commands.iter().map(|command| command.text.as_str()).collect()
    }

    /// What the lines say.
    #[must_use]
    pub fn transcript(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.text.as_str()).collect()
    }
}

impl Findings for Found {
    fn command(&mut self, command: Command) {
        self.commands.push(command);
    }

    fn file(&mut self, file: FileAccess) {
        self.files.push(file);
    }

    fn forward(&mut self, forward: Forward) {
        self.forwards.push(forward);
    }

    fn line(&mut self, line: TranscriptLine) {
        self.lines.push(line);
    }
}
