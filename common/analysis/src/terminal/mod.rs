//! A terminal: what stood on it, and which commands were entered there.
//!
//! `scan` takes control strings out of the output, `emulator` keeps the screen, `shell` finds prompts and entries on
//! it (`prompt`, `entry`, `marks`, `interpreters`), `commands` knows what runs, `transcript` collects the lines.

mod commands;
mod emulator;
mod entry;
mod grammar;
mod grid;
mod interpreters;
mod keys;
mod marks;
mod panes;
mod prompt;
mod scan;
mod shell;
mod transcript;

#[cfg(test)]
mod tests;

use weir_common::{
    frame::{Direction, WindowSize},
    recording::findings::Span,
    session::ChannelNo,
};

use self::{
    commands::{Commands, Place},
    emulator::Emulator,
    grid::Grid,
    panes::Panes,
    scan::{Mode, Piece, Scanner},
    shell::Shell,
    transcript::Transcript,
};
use crate::{At, Findings, TranscriptLine};

/// Follows the terminal of one channel.
pub struct Terminal {
    ch: ChannelNo,
    scanner: Scanner,
    emulator: Emulator,
    transcript: Transcript,
    shell: Shell,
    /// How many bytes the target sent.
    offset: u64,
    /// When the program began that has the whole screen.
    full_screen: Option<At>,
    /// The panes of tmux or screen, if that has it.
    panes: Option<Panes>,
    /// The size that the window has by now, where laying the screen out anew has to wait.
    wanted: Option<WindowSize>,
}

impl Terminal {
    /// A terminal of this size. `exec` says that it runs a command and no login shell.
    #[must_use]
    pub fn new(ch: ChannelNo, size: WindowSize, exec: bool) -> Self {
        let _ = exec;
        Self {
            ch,
            scanner: Scanner::new(),
            emulator: Emulator::new(size),
            transcript: Transcript::default(),
            shell: Shell::new(Commands::new(ch, None)),
            offset: 0,
            full_screen: None,
            panes: None,
            wanted: None,
        }
    }

    /// How many cells a terminal of this size takes.
    #[must_use]
    pub fn cells_of(size: WindowSize) -> usize {
        Emulator::cells_of(size)
    }

    /// How many cells this one takes, or will once it has its window's size.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.wanted.map_or(0, Emulator::cells_of).max(self.emulator.cells())
    }

    /// Bytes that the user's client sent.
    pub fn input(&mut self, at: At, bytes: &[u8], out: &mut dyn Findings) {
        let _ = &out;
        let place = Place { at, offset: self.offset };
        if let Some(panes) = &mut self.panes {
            panes.input(place, bytes, &self.emulator);
        }
        self.shell.input(at, bytes, &self.emulator, self.full_screen.is_none());
        self.emulator.keep(self.shell.is_entering());
    }

    /// Bytes that the target sent.
    pub fn output(&mut self, at: At, bytes: &[u8], out: &mut dyn Findings) {
        self.transcript.at(self.emulator.cursor().row, at.t);
        let mut rest = bytes;
        self.scanner.begin(bytes.len());
        self.take_size(out);
        let cells = self.emulator.cells();
        while let Some((piece, used)) = self.scanner.next(rest, self.shell.wants_lines(), cells) {
            let waited = matches!(piece, Piece::Mode(Mode::Paste, false));
            if let Some(panes) = self.panes.as_mut().filter(|_| waited) {
                panes.drawn(Place { at, offset: self.offset }, &self.emulator, false, out);
            }
            rest = &rest[used..];
            self.offset += used as u64;
            self.piece(piece, Place { at, offset: self.offset }, out);
        }
        let place = Place { at, offset: self.offset };
        if let Some(panes) = &mut self.panes {
            panes.drawn(place, &self.emulator, true, out);
        }
        if self.full_screen.is_none() {
            self.shell.output_end(place, &self.emulator, &mut self.transcript, out);
        }
        self.transcript.at(self.emulator.cursor().row, at.t);
        self.say(out);
    }

    fn piece(&mut self, piece: Piece<'_>, place: Place, out: &mut dyn Findings) {
        let Self { emulator, transcript, shell, .. } = self;
        match piece {
            Piece::Text(bytes) => emulator.feed(bytes, transcript),
            Piece::LineFeed => {
                if self.full_screen.is_none() {
                    shell.line_feed(place, emulator, transcript, out);
                }
                emulator.feed(b"\n", transcript);
            }
            Piece::Mode(Mode::Paste, on) if self.full_screen.is_none() => {
                shell.waits(on, place, emulator, transcript, out);
                emulator.keep(shell.is_entering());
            }
            Piece::Mode(Mode::Paste, _) => {}
            Piece::Mode(Mode::Alternate, true) => {
                if self.full_screen.is_none() {
                    self.full_screen = Some(place.at);
                    self.panes = self.multiplexer().map(|is_screen| Panes::new(self.ch, is_screen));
                }
            }
            Piece::Mode(Mode::Alternate, false) => self.leave_full_screen(Some(place), out),
            Piece::Osc(string) => {
                if let Some(mark) = marks::of_osc(&string).filter(|_| self.full_screen.is_none()) {
                    shell.mark(mark, place, emulator, transcript, out);
                }
            }
            Piece::Dcs(string) => {
                if let Some(mark) = marks::of_dcs(&string).filter(|_| self.full_screen.is_none()) {
                    shell.mark(mark, place, emulator, transcript, out);
                }
            }
        }
    }

    /// Whether what runs is a multiplexer, and whether that is screen.
    fn multiplexer(&self) -> Option<bool> {
        let command = self.shell.commands.running()?;
        let name = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
        let is = |of: &str| command.split([' ', ';', '&', '|', '\n']).any(|word| name(word) == of);
        match () {
            () if is("tmux") || is("byobu") => Some(false),
            () if is("screen") => Some(true),
            () => None,
        }
    }

    fn leave_full_screen(&mut self, end: Option<Place>, out: &mut dyn Findings) {
        if let Some(panes) = self.panes.take() {
            panes.finish(end, out);
        }
        let end = end.map(|place| place.at);
        let Some(begin) = self.full_screen.take() else { return };
        let span = Span { t: begin.t, t_end: end.map(|at| at.t), started_at: None, ended_at: None };
        let seconds = span.t_end.map(|end| end.saturating_sub(begin.t) / NS_PER_S);
        let mut text = "[full screen".to_owned();
        if let Some(command) = self.shell.commands.running() {
            let line = command.lines().next().unwrap_or("");
            text.push_str(": ");
            text.extend(line.chars().take(NOTE_CHARS_MAX));
        }
        if let Some(seconds) = seconds {
            text.push_str(&format!(", {seconds} s"));
        }
        text.push(']');
        self.transcript.note(self.emulator.cursor().row, begin.t, text);
        self.shell.full_screen(span);
    }

    fn say(&mut self, out: &mut dyn Findings) {
        say(self.ch, &mut self.transcript, out);
    }

    /// The user's window has another size now.
    pub fn resize(&mut self, at: At, size: WindowSize, out: &mut dyn Findings) {
        let _ = at;
        self.wanted = Some(size);
        self.take_size(out);
    }

    /// Lays the screen out anew, unless that is too much work for what was sent: then it waits for more output, and of many
    /// sizes the last one counts.
    fn take_size(&mut self, out: &mut dyn Findings) {
        let Some(size) = self.wanted else { return };
        let cells = self.emulator.cells() + Emulator::cells_of(size);
        if self.scanner.affords(cells * RESIZE_WORK) {
            self.wanted = None;
            let Self { emulator, transcript, shell, .. } = self;
            emulator.resize(size, &mut shell.places(), transcript);
            self.say(out);
        }
    }

    /// Something is missing here.
    pub fn gap(&mut self, direction: Direction) {
        let _ = direction;
        self.shell.gap();
    }

    /// The terminal is gone, or the recording ends (`at` is none then).
    pub fn end(mut self, at: Option<At>, exit_code: Option<i32>, out: &mut dyn Findings) {
        // The code is the shell's, and no command's.
        let _ = exit_code;
        let place = at.map(|at| Place { at, offset: self.offset });
        self.leave_full_screen(place, out);
        let Self { ch, emulator, mut transcript, shell, .. } = self;
        emulator.finish(&mut transcript);
        say(ch, &mut transcript, out);
        shell.commands.finish(place, out);
    }
}

fn say(ch: ChannelNo, transcript: &mut Transcript, out: &mut dyn Findings) {
    for said in transcript.take() {
        let transcript::Said { t, text, is_command } = said;
        out.line(TranscriptLine { ch, t, pane: None, text, is_command });
    }
}

/// How often each cell is gone through when a screen gets another size: laid out anew, and where an entry stands looked up.
const RESIZE_WORK: usize = 4;
/// Nanoseconds in a second.
const NS_PER_S: u64 = 1_000_000_000;
/// The most characters of a command in a remark about it.
const NOTE_CHARS_MAX: usize = 80;
