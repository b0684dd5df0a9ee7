//! Long output for people goes through a pager, as git does it: `$PAGER`, else `less`, and straight to the terminal where
//! there is neither.

use std::{
    io::{self, Write},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::cli;

/// A pager that shows what is written to it. Waits until the reader has left it.
pub struct Pager {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Pager {
    /// Starts one if this command's output is for people, and they sit at a terminal.
    #[must_use]
    pub fn start(cli: &cli::Cli, terminal: bool, env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let cli::Command::Show(args) = &cli.command else { return None };
        if !terminal || args.json || args.no_pager {
            return None;
        }
        let pager = env("PAGER").unwrap_or_else(|| "less".to_owned());
        if pager.is_empty() || pager == "cat" {
            return None;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "exec $0", &pager]).stdin(Stdio::piped());
        if env("LESS").is_none() {
            // Not at all for what fits the screen, colours, and what was shown stays.
            command.env("LESS", "FRX");
        }
        // `sh` starts anyhow: whether what it is to run is there has to be asked first.
        let program = pager.split_whitespace().next()?;
        is_there(program, env("PATH").as_deref()).then_some(())?;
        let mut child = command.spawn().ok()?;
        let stdin = child.stdin.take();
        Some(Self { child, stdin })
    }
}

fn is_there(program: &str, path: Option<&str>) -> bool {
    program.contains('/')
        || std::env::split_paths(path.unwrap_or_default()).any(|dir| dir.join(program).is_file())
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stdin {
            Some(stdin) => stdin.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // That is the end of what it reads.
        self.stdin = None;
        let _ = self.child.wait();
    }
}
