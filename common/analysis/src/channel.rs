//! A channel's part of a session: what it turns out to be for, and who follows it then.

use weir_common::{
    frame::{Direction, WindowSize},
    recording::{
        Content, Event, Part, What,
        findings::{COMMAND_CHARS_MAX, Command, Confidence, Evidence, Source, Span},
    },
    session::ChannelNo,
};

use crate::{
    At, Findings, TranscriptLine,
    forwards::Forwarded,
    terminal::Terminal,
    transfers::{Chunk, Transfer},
};

/// Follows one channel.
pub(crate) struct Channel {
    ch: ChannelNo,
    forwarded: Option<Forwarded>,
    pty: Option<WindowSize>,
    exec: Option<Exec>,
    terminal: Option<Terminal>,
    transfer: Option<Transfer>,
    exit_code: Option<i32>,
    stdout_bytes: u64,
    /// Whether the last that was asked for is a program.
    asked: bool,
    /// Whether the target said that a program runs, or sent any data.
    ran: bool,
    closed: [bool; 2],
}

/// A command that the client asked for.
struct Exec {
    text: String,
    t: u64,
    evidence: Evidence,
}

impl Channel {
    pub(crate) fn new(ch: ChannelNo) -> Self {
        Self {
            ch,
            forwarded: None,
            pty: None,
            exec: None,
            terminal: None,
            transfer: None,
            exit_code: None,
            stdout_bytes: 0,
            asked: false,
            ran: false,
            closed: [false; 2],
        }
    }

    /// Whether nothing will come any more.
    pub(crate) fn is_over(&self) -> bool {
        self.closed == [true; 2]
    }

    pub(crate) fn event(&mut self, event: &Event, content: &[u8], out: &mut dyn Findings) {
        let at = At { t: event.t, seq: event.seq };
        match &event.what {
            What::Open { channel } => self.forwarded = Forwarded::new(channel, at),
            What::OpenFailure(failure) => {
                if let Some(forwarded) = &mut self.forwarded {
                    forwarded.refused(&failure.description);
                }
                self.closed = [true; 2];
                self.end(at, out);
            }
            What::Pty(pty) => {
                self.asked = false;
                self.pty = Some(pty.size);
            }
            // The proxy asks one thing at a time.
            What::Success if self.asked => self.ran = true,
            What::WindowChange(size) => {
                self.pty = self.pty.map(|_| *size);
                if let Some(terminal) = &mut self.terminal {
                    terminal.resize(at, *size, out);
                }
            }
            What::Shell if self.takes_a_program() => self.begin(None, at, out),
            What::Exec(_) if self.takes_a_program() => self.begin(Some(content), at, out),
            What::Subsystem { name } if self.takes_a_program() && self.pty.is_none() => {
                self.transfer = Transfer::for_subsystem(name);
            }
            What::Stdin(data) | What::Stdout(data) | What::Stderr(data) => {
                self.data(event, data, content, at, out);
            }
            What::ExitStatus { status } => self.exit_code = i32::try_from(*status).ok(),
            What::Close => {
                self.closed[usize::from(event.dir == Direction::TargetToClient)] = true;
                if self.is_over() {
                    self.end(at, out);
                }
            }
            What::Gap(_) => self.gap(event.dir),
            _ => {}
        }
    }

    /// Whether this event's data is looked at.
    pub(crate) fn wants(&self, event: &Event) -> bool {
        match event.what {
            What::Stdin(_) | What::Stdout(_) if self.transfer.is_some() => self.forwarded.is_none(),
            What::Stdin(_) | What::Stdout(_) | What::Stderr(_) => {
                self.forwarded.is_none() && self.terminal.is_some()
            }
            _ => true,
        }
    }

    /// The recording ends while the channel is open.
    pub(crate) fn finish(mut self, out: &mut dyn Findings) {
        if let Some(terminal) = self.terminal.take() {
            terminal.end(None, None, out);
        }
        if let Some(transfer) = self.transfer.take() {
            transfer.end(self.ch, None, out);
        }
        self.say_exec(None, out);
        if let Some(forwarded) = self.forwarded.take() {
            out.forward(forwarded.finding(self.ch, None));
        }
    }

    /// A channel runs one program (RFC 4254, 6.5). One that was asked for and said nothing may have been refused, so the
    /// next one takes its place; one that is asked for behind a program that speaks is refused and changes nothing.
    fn takes_a_program(&mut self) -> bool {
        if self.ran {
            return false;
        }
        (self.transfer, self.terminal) = (None, None);
        self.asked = true;
        true
    }

    fn begin(&mut self, command: Option<&[u8]>, at: At, out: &mut dyn Findings) {
        if let Some(command) = command {
            // On a terminal bytes are changed: no protocol of files works there.
            self.transfer = if self.pty.is_none() { Transfer::for_command(command) } else { None };
            let text: String = String::from_utf8_lossy(command).chars().take(COMMAND_CHARS_MAX).collect();
            let line =
                TranscriptLine { ch: self.ch, t: at.t, pane: None, text: text.clone(), is_command: true };
            out.line(line);
            let evidence = Evidence { first_seq: at.seq, last_seq: at.seq, from: 0, to: 0 };
            self.say_exec(Some(at), out);
            self.exec = Some(Exec { text, t: at.t, evidence });
        }
        if let Some(size) = self.pty {
            self.terminal = Some(Terminal::new(self.ch, size, command.is_some()));
        }
    }

    fn data(&mut self, event: &Event, data: &Content, content: &[u8], at: At, out: &mut dyn Findings) {
        if let Some(forwarded) = &mut self.forwarded {
            return forwarded.count(event.dir, data.len());
        }
        let to_client = matches!(event.what, What::Stdout(_));
        let is_missing = !matches!(data, Content::Withheld(_)) && content.len() as u64 != data.len();
        if is_missing && self.wants(event) {
            // Its bulk can't be read.
            self.gap(event.dir);
        }
        self.ran |= event.dir == Direction::TargetToClient;
        if let Some(transfer) = self.transfer.as_mut().filter(|_| !matches!(event.what, What::Stderr(_))) {
            match data {
                Content::Withheld(parts) => {
                    for part in parts {
                        let chunk = match part {
                            Part::Kept(bytes) => Chunk::Bytes(bytes),
                            Part::Withheld { bytes, sha256 } => {
                                Chunk::Withheld { bytes: *bytes, sha256: *sha256 }
                            }
                        };
                        transfer.data(self.ch, event.dir, at, chunk, out);
                    }
                }
                _ => transfer.data(self.ch, event.dir, at, Chunk::Bytes(content), out),
            }
        } else if let Some(terminal) = &mut self.terminal {
            match event.dir {
                Direction::ClientToTarget => terminal.input(at, content, out),
                Direction::TargetToClient => terminal.output(at, content, out),
            }
        }
        if to_client {
            self.stdout_bytes += data.len();
            if let Some(exec) = &mut self.exec {
                (exec.evidence.last_seq, exec.evidence.to) = (at.seq, self.stdout_bytes);
            }
        }
    }

    fn gap(&mut self, direction: Direction) {
        if let Some(terminal) = &mut self.terminal {
            terminal.gap(direction);
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.gap(direction);
        }
    }

    fn end(&mut self, at: At, out: &mut dyn Findings) {
        if let Some(terminal) = self.terminal.take() {
            terminal.end(Some(at), self.exit_code, out);
        }
        if let Some(transfer) = self.transfer.take() {
            transfer.end(self.ch, Some(at), out);
        }
        self.say_exec(Some(at), out);
        if let Some(forwarded) = self.forwarded.take() {
            out.forward(forwarded.finding(self.ch, Some(at)));
        }
    }

    fn say_exec(&mut self, end: Option<At>, out: &mut dyn Findings) {
        let Some(Exec { text, t, evidence }) = self.exec.take() else { return };
        out.command(Command {
            n: 0,
            ch: self.ch,
            span: Span { t, t_end: end.map(|at| at.t), started_at: None, ended_at: None },
            text,
            source: Source::Exec,
            confidence: Confidence::Exact,
            exit_code: self.exit_code,
            pasted: false,
            masked: 0,
            cwd: None,
            repl: None,
            pane: None,
            full_screen: Vec::new(),
            evidence,
        });
    }
}

#[cfg(test)]
mod tests {
    use weir_common::{
        frame::Pty,
        recording::findings::{FileAccess, Forward},
    };

    use super::*;
    use crate::TranscriptLine;

    #[derive(Default)]
    struct Found(Vec<String>);

    impl Findings for Found {
        fn command(&mut self, command: Command) {
            self.0.push(command.text);
        }
        fn file(&mut self, _: FileAccess) {
            self.0.push("a file".to_owned());
        }
        fn forward(&mut self, _: Forward) {}
        fn line(&mut self, _: TranscriptLine) {}
    }

    fn found(events: &[(Direction, What)]) -> Vec<String> {
        let (mut channel, mut found) = (Channel::new(ChannelNo(0)), Found::default());
        for (n, (dir, what)) in (0..).zip(events) {
            let event = Event {
                t: n * 1_000_000_000,
                dir: *dir,
                ch: ChannelNo(0),
                seq: n,
                len: 0,
                what: what.clone(),
            };
            let content = what.content().and_then(|content| content.bytes(&[])).unwrap_or_default().to_vec();
            channel.event(&event, &content, &mut found);
        }
        channel.finish(&mut found);
        found.0
    }

    #[test]
    fn a_request_behind_a_shell_or_before_it_does_not_hide_what_is_run_there() {
        use Direction::{ClientToTarget as C2T, TargetToClient as T2C};
        let text = |text: &str| Content::Text(text.to_owned());
        let pty = Pty {
            term: "xterm".to_owned(),
            size: WindowSize { cols: 80, rows: 24, width_px: 0, height_px: 0 },
            modes: Vec::new(),
        };
        let sftp = || (C2T, What::Subsystem { name: "sftp".to_owned() });
        let shell = [(C2T, What::Pty(pty)), (C2T, What::Shell), (T2C, What::Stdout(text("me@host:~$ ")))];
        let run = [(C2T, What::Stdin(text("id\r"))), (T2C, What::Stdout(text("id\r\nuid=0\r\nme@host:~$ ")))];
        let behind: Vec<_> = shell.iter().cloned().chain([sftp()]).chain(run.clone()).collect();
        assert_eq!(found(&behind), ["id"]);
        let before: Vec<_> = [sftp(), (T2C, What::Failure)].into_iter().chain(shell).chain(run).collect();
        assert_eq!(found(&before), ["id"]);
    }
}
