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
    requests::{Request, Requests},
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
    requests: Requests,
    /// Whether the target said that the program runs, or sent any data.
    ran: bool,
    /// Whether it was said that there is no room for its terminal's picture.
    crowded: bool,
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
            requests: Requests::default(),
            ran: false,
            crowded: false,
            closed: [false; 2],
        }
    }

    /// Whether nothing will come any more.
    pub(crate) fn is_over(&self) -> bool {
        self.closed == [true; 2]
    }

    /// How many cells its terminal takes.
    pub(crate) fn cells(&self) -> usize {
        self.terminal.as_ref().map_or(0, Terminal::cells)
    }

    /// Takes the next event. Its terminal may have `room` cells.
    pub(crate) fn event(&mut self, event: &Event, content: &[u8], room: usize, out: &mut dyn Findings) {
        let at = At { t: event.t, seq: event.seq };
        let takes_it = event.dir == Direction::ClientToTarget && self.takes_a_program(&event.what);
        match &event.what {
            What::Open { channel } => self.forwarded = Forwarded::new(channel, at),
            What::OpenFailure(failure) => {
                if let Some(forwarded) = &mut self.forwarded {
                    forwarded.refused(&failure.description);
                }
                self.closed = [true; 2];
                self.end(at, out);
            }
            What::Pty(pty) => self.pty = Some(pty.size),
            What::Success | What::Failure if event.dir == Direction::TargetToClient => {
                self.ran |= self.requests.answered(matches!(event.what, What::Success)) == Some(true);
            }
            What::WindowChange(size) => {
                self.pty = self.pty.map(|_| *size);
                let has_room = Terminal::cells_of(*size) <= room.max(self.cells());
                match &mut self.terminal {
                    Some(terminal) if has_room => terminal.resize(at, *size, out),
                    Some(_) => self.crowded("[the window's new size is not followed", at, out),
                    None => {}
                }
            }
            What::Shell if takes_it => self.begin(None, at, room, out),
            What::Exec(_) if takes_it => self.begin(Some(content), at, room, out),
            What::Subsystem { name } if takes_it && self.pty.is_none() => {
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
            What::Gap(_) => {
                self.requests.lose_track();
                self.gap(event.dir);
            }
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

    /// Whether this asks for a program that the channel may run. One that was asked for and said nothing may have been
    /// refused, so the next one takes its place; one that is asked for behind a program that runs is refused and changes
    /// nothing.
    fn takes_a_program(&mut self, what: &What) -> bool {
        let takes_it = Request::of(what).is_some_and(|request| self.requests.asked(request, self.ran));
        if takes_it {
            (self.transfer, self.terminal) = (None, None);
        }
        takes_it
    }

    fn begin(&mut self, command: Option<&[u8]>, at: At, room: usize, out: &mut dyn Findings) {
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
        match self.pty {
            Some(size) if Terminal::cells_of(size) <= room => {
                self.terminal = Some(Terminal::new(self.ch, size, command.is_some()));
            }
            Some(_) => {
                self.crowded("[what stands on this terminal, and is entered there, is not followed", at, out);
            }
            None => {}
        }
    }

    /// Says once that the session's terminals are too large together.
    fn crowded(&mut self, what: &str, at: At, out: &mut dyn Findings) {
        if !std::mem::replace(&mut self.crowded, true) {
            let text = format!("{what}: the terminals of this session are too many or too large]");
            out.line(TranscriptLine { ch: self.ch, t: at.t, pane: None, text, is_command: false });
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
    use weir_common::frame::{Env, Pty};

    use super::*;
    use crate::{Analysis, Found, masking::Masking};

    fn found(events: &[(Direction, What)]) -> Found {
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
            channel.event(&event, &content, crate::CELLS_MAX, &mut found);
        }
        channel.finish(&mut found);
        found
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
        assert_eq!(found(&behind).texts(), ["id"]);
        let before: Vec<_> = [sftp(), (T2C, What::Failure)].into_iter().chain(shell).chain(run).collect();
        assert_eq!(found(&before).texts(), ["id"]);
    }

    #[test]
    fn the_answer_to_a_variable_is_not_the_programs() {
        use Direction::{ClientToTarget as C2T, TargetToClient as T2C};
        let env = || What::Env(Env { name: "LANG".to_owned(), value: "C".to_owned() });
        let exec = |command: &str| (C2T, What::Exec(Content::Text(command.to_owned())));
        let refused =
            [(C2T, env()), exec("scp -t x"), (T2C, What::Success), (T2C, What::Failure), exec("id")];
        assert_eq!(found(&refused).texts(), ["scp -t x", "id"], "the second one runs");
        let ran =
            [(C2T, env()), exec("id"), (C2T, env()), (T2C, What::Failure), (T2C, What::Success), exec("ls")];
        assert_eq!(found(&ran).texts(), ["id"], "it runs already");
    }

    /// What a session on many terminals sends.
    #[derive(Default)]
    struct Terminals {
        t: u64,
        analysis: Option<Analysis>,
        found: Found,
    }

    impl Terminals {
        fn say(&mut self, ch: u32, dir: Direction, what: What) {
            let analysis = self.analysis.get_or_insert_with(|| Analysis::new(None, Masking::default()));
            let content = what.content().and_then(|content| content.bytes(&[])).unwrap_or_default().to_vec();
            self.t += 1;
            let event = Event { t: self.t, dir, ch: ChannelNo(ch), seq: self.t, len: 0, what };
            analysis.event(&event, &content, &mut self.found);
        }

        /// A shell on a terminal of this size prints a line.
        fn shell(&mut self, ch: u32, cols: u32, rows: u32) {
            let size = WindowSize { cols, rows, width_px: 0, height_px: 0 };
            let pty = Pty { term: "xterm".to_owned(), size, modes: Vec::new() };
            self.say(ch, Direction::ClientToTarget, What::Pty(pty));
            self.say(ch, Direction::ClientToTarget, What::Shell);
            let line = Content::Text(format!("printed on {ch}\r\n"));
            self.say(ch, Direction::TargetToClient, What::Stdout(line));
        }

        fn close(&mut self, ch: u32) {
            for dir in [Direction::ClientToTarget, Direction::TargetToClient] {
                self.say(ch, dir, What::Close);
            }
        }
    }

    #[test]
    fn terminals_that_are_too_large_together_are_said_to_be_followed_no_more() {
        const FITTING: u32 = 27;
        let mut terminals = Terminals::default();
        for ch in 0..40 {
            terminals.shell(ch, u32::MAX, u32::MAX);
        }
        assert_eq!(
            terminals.found.lines.len(),
            40 - FITTING as usize,
            "nothing is final yet but what is said of them"
        );
        for (line, ch) in terminals.found.lines.iter().zip(FITTING..) {
            assert_eq!(line.ch, ChannelNo(ch));
            assert!(
                line.text.contains("is not followed: the terminals of this session are too many"),
                "{}",
                line.text
            );
        }
        terminals.close(3);
        assert_eq!(terminals.found.transcript().last(), Some(&"printed on 3"));
        terminals.shell(50, 500, 300);
        terminals.close(50);
        assert_eq!(terminals.found.transcript().last(), Some(&"printed on 50"), "there is room again");
    }

    #[test]
    fn a_window_that_grows_beyond_the_room_is_followed_at_its_size_and_that_is_said_once() {
        let mut terminals = Terminals::default();
        for ch in 0..28 {
            terminals.shell(ch, 500, 250);
        }
        let grown = What::WindowChange(WindowSize { cols: 500, rows: 300, ..Default::default() });
        for ch in 0..28 {
            for _ in 0..3 {
                terminals.say(ch, Direction::ClientToTarget, grown.clone());
            }
        }
        let said = terminals.found.transcript();
        assert!(said.len() < 28 && !said.is_empty(), "{said:?}");
        assert!(
            said.iter().all(|line| line.starts_with("[the window's new size is not followed: ")),
            "{said:?}"
        );
        terminals.close(27);
        assert_eq!(terminals.found.transcript().last(), Some(&"printed on 27"));
    }
}
