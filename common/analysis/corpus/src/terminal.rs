//! A program on a real pty, and a record of all that passes there, in the form of a recording's events.
//!
//! Waiting is for conditions that the kernel can tell: who has the terminal, and whether it sleeps.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{InputFlags, LocalFlags, SetArg, tcgetattr, tcsetattr},
};
use weir_common::{
    frame::{ChannelType, Direction, Pty, WindowSize},
    recording::{Content, Event, What},
    session::ChannelNo,
};

/// How long anything may take before the session counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing has to come, twice, of a program that sleeps, until it counts as waiting.
const STILL_MS: u16 = 8;

/// An event and its bytes.
pub struct Recorded {
    /// The event.
    pub event: Event,
    /// Its data.
    pub content: Vec<u8>,
}

/// The program, its pty and what passed.
pub(crate) struct Terminal {
    pty: pty_process::blocking::Pty,
    child: Child,
    recorded: Vec<Recorded>,
    seqs: [u64; 2],
    began: Instant,
    shown: Vec<u8>,
    sent_at: usize,
    gone: bool,
}

impl Terminal {
    /// Starts a program on a new pty. `exec` is the command line where one was asked for instead of a shell.
    pub(crate) fn start(
        command: pty_process::blocking::Command,
        cols: u16,
        rows: u16,
        exec: Option<&str>,
    ) -> Result<Self> {
        let (pty, pts) = pty_process::blocking::open().context("opening a pty")?;
        pty.resize(pty_process::Size::new(rows, cols)).context("sizing a pty")?;
        // As sshd does when the client's modes ask for it, which OpenSSH's do.
        let mut modes = tcgetattr(&pty).context("reading a pty's modes")?;
        modes.input_flags.insert(InputFlags::IUTF8);
        tcsetattr(&pty, SetArg::TCSANOW, &modes).context("setting a pty's modes")?;
        let child = command.spawn(pts).context("starting the shell")?;
        let mut terminal = Self {
            pty,
            child,
            recorded: Vec::new(),
            seqs: [0; 2],
            began: Instant::now(),
            shown: Vec::new(),
            sent_at: 0,
            gone: false,
        };
        terminal.say(Direction::ClientToTarget, What::Open { channel: ChannelType::Session });
        terminal.say(Direction::TargetToClient, What::OpenConfirm);
        let pty = Pty { term: "xterm-256color".to_owned(), size: size(cols, rows), modes: Vec::new() };
        terminal.say(Direction::ClientToTarget, What::Pty(pty));
        match exec {
            Some(exec) => {
                let what = What::Exec(Content::Text(exec.to_owned()));
                terminal.record(Direction::ClientToTarget, what, exec.as_bytes());
            }
            None => terminal.say(Direction::ClientToTarget, What::Shell),
        }
        Ok(terminal)
    }

    /// All that was shown.
    #[must_use]
    pub(crate) fn shown(&self) -> &[u8] {
        &self.shown
    }

    /// How much had been shown when something was sent last.
    pub(crate) fn sent_at(&self) -> usize {
        self.sent_at
    }

    /// Sends bytes as they are, at once.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.sent_at = self.shown.len();
        // A pty's queue holds 4 KiB; the shell has to take its part before there is room for more.
        for chunk in bytes.chunks(1000) {
            self.record(Direction::ClientToTarget, What::Stdin(content(chunk)), chunk);
            self.pty.write_all(chunk).context("typing")?;
            if bytes.len() > chunk.len() {
                self.take(2)?;
            }
        }
        Ok(())
    }

    /// The user changes the window's size.
    pub(crate) fn resize(&mut self, cols: u16, rows: u16) -> Result<()> {
        self.say(Direction::ClientToTarget, What::WindowChange(size(cols, rows)));
        self.pty.resize(pty_process::Size::new(rows, cols)).context("resizing a pty")
    }

    /// Takes what is shown within this time, and returns as soon as something is.
    pub(crate) fn take(&mut self, wait_ms: u16) -> Result<bool> {
        let mut fds = [PollFd::new(self.pty.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(wait_ms)).context("polling a pty")? == 0 || self.gone {
            return Ok(false);
        }
        let mut buffer = [0; 16 << 10];
        match self.pty.read(&mut buffer) {
            Ok(len @ 1..) => {
                self.record(Direction::TargetToClient, What::Stdout(content(&buffer[..len])), &buffer[..len]);
                self.shown.extend_from_slice(&buffer[..len]);
                Ok(true)
            }
            // The pty's last user is gone.
            _ => {
                self.gone = true;
                Ok(false)
            }
        }
    }

    /// Takes what is shown for this long.
    pub(crate) fn watch(&mut self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        while Instant::now() < until && !self.gone {
            self.take(5)?;
        }
        Ok(())
    }

    /// Takes what is shown until the condition holds.
    pub(crate) fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) -> Result<()> {
        let began = Instant::now();
        while !condition(self) {
            self.take(5)?;
            if began.elapsed() > PATIENCE {
                let tail = &self.shown[self.shown.len().saturating_sub(600)..];
                bail!("waited in vain until {what}; shown last: {:?}", String::from_utf8_lossy(tail));
            }
            if self.gone {
                bail!("the shell is gone; waited until {what}");
            }
        }
        Ok(())
    }

    /// Until the program in the foreground sleeps and shows nothing more.
    pub(crate) fn settle(&mut self) -> Result<()> {
        let (mut still, began) = (0, Instant::now());
        while still < 2 && !self.gone {
            if self.take(STILL_MS)? || !self.sleeps() {
                still = 0;
            } else {
                still += 1;
            }
            if began.elapsed() > PATIENCE {
                bail!("the terminal does not come to rest");
            }
        }
        Ok(())
    }

    /// Types like a person: a few bytes at a time, each echoed before the next.
    pub(crate) fn type_slowly(&mut self, text: &str, mut sizes: impl FnMut() -> usize) -> Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let len = rest.char_indices().nth(sizes().max(1)).map_or(rest.len(), |(at, _)| at);
            let (now, later) = rest.split_at(len);
            self.send(now.as_bytes())?;
            self.take(30)?;
            rest = later;
        }
        self.settle()
    }

    /// Whether the process that has the terminal sleeps.
    fn sleeps(&self) -> bool {
        self.foreground().and_then(state).is_none_or(|state| state == 'S')
    }

    /// Whether another program than the first has the terminal.
    pub(crate) fn is_lent(&self) -> bool {
        self.foreground().is_some_and(|pid| pid.cast_unsigned() != self.child.id())
    }

    /// Whether keys come to the program one by one.
    pub(crate) fn is_raw(&self) -> bool {
        tcgetattr(&self.pty).is_ok_and(|modes| !modes.local_flags.contains(LocalFlags::ICANON))
    }

    fn foreground(&self) -> Option<i32> {
        nix::unistd::tcgetpgrp(&self.pty).ok().map(nix::unistd::Pid::as_raw).filter(|pid| *pid > 0)
    }

    /// Whether the program is gone.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Waits for the end and gives what was recorded.
    pub(crate) fn finish(mut self) -> Result<Vec<Recorded>> {
        let began = Instant::now();
        while !self.gone {
            self.take(20)?;
            if began.elapsed() > PATIENCE {
                let tail = &self.shown[self.shown.len().saturating_sub(600)..];
                bail!("the shell does not end; shown last: {:?}", String::from_utf8_lossy(tail));
            }
        }
        let status = self.child.wait().context("waiting for the shell")?;
        let status = u32::try_from(status.code().unwrap_or(255)).unwrap_or(255);
        self.say(Direction::TargetToClient, What::Eof);
        self.say(Direction::TargetToClient, What::ExitStatus { status });
        self.say(Direction::TargetToClient, What::Close);
        self.say(Direction::ClientToTarget, What::Close);
        Ok(std::mem::take(&mut self.recorded))
    }

    fn say(&mut self, dir: Direction, what: What) {
        self.record(dir, what, &[]);
    }

    fn record(&mut self, dir: Direction, what: What, bytes: &[u8]) {
        let seq = &mut self.seqs[usize::from(dir == Direction::TargetToClient)];
        let t = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let event = Event { t, dir, ch: ChannelNo(0), seq: *seq, len, what };
        *seq += 1;
        self.recorded.push(Recorded { event, content: bytes.to_vec() });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !self.gone {
            // Whatever still runs there gets SIGHUP when the pty is closed.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn content(bytes: &[u8]) -> Content {
    Content::of(bytes, &mut Vec::new())
}

fn size(cols: u16, rows: u16) -> WindowSize {
    WindowSize { cols: cols.into(), rows: rows.into(), width_px: 0, height_px: 0 }
}

/// A process's state (proc_pid_stat(5)); none if there is no such process.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}
