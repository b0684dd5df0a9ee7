//! What a recorded session amounts to: commands, files, forwards and a transcript, from its events.
//!
//! Sans-IO: events go in, in the order of the recording, findings come out. Bounded whatever the events hold: a target
//! and a user may both be hostile. Nothing here panics, and nothing that it says replaces the evidence.
//! Not here: how recordings are read and findings stored.

#![forbid(unsafe_code)]

mod channel;
mod forwards;
mod found;
pub mod fuzz;
pub mod lines;
pub mod masking;
pub mod requests;
pub mod terminal;
mod text;
pub mod transcript;
pub mod transfers;

use std::{borrow::Cow, collections::BTreeMap};

use weir_common::{
    recording::{
        Clock, Event, What,
        findings::{COMMAND_CHARS_MAX, Command, FileAccess, Forward, Span},
    },
    session::ChannelNo,
};

pub use self::found::Found;
use self::{
    channel::Channel,
    masking::{Lines, Masking},
};

/// The most channels that are followed side by side; more are passed over.
const CHANNELS_MAX: usize = 1000;

/// The most cells of all terminals that are followed at a time: some 160 MiB, as the emulator has two screens of each.
/// Room for a thousand of 160 columns and 26 rows.
const CELLS_MAX: usize = 4 << 20;

/// Takes what is found, as soon as it is.
pub trait Findings {
    /// A command ended, or the recording did while it ran.
    fn command(&mut self, command: Command);
    /// Something was done to a file.
    fn file(&mut self, file: FileAccess);
    /// A forwarded connection ended.
    fn forward(&mut self, forward: Forward);
    /// A line of a terminal will not change any more.
    fn line(&mut self, line: TranscriptLine);
}

/// A line of a terminal: a whole one, whatever its terminal's width.
#[derive(Clone, PartialEq, Eq)]
pub struct TranscriptLine {
    /// The channel.
    pub ch: ChannelNo,
    /// Kernel time at which it was begun.
    pub t: u64,
    /// The pane of tmux or screen.
    pub pane: Option<String>,
    /// Its text, without line end, colours and trailing blanks. Secrets are masked.
    pub text: String,
    /// Whether a command was entered on it, or it is one that the client asked for.
    pub is_command: bool,
}

/// When and where in the recording something was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Kernel time.
    pub t: u64,
    /// Sequence number of the frame.
    pub seq: u64,
}

/// Follows a session.
pub struct Analysis {
    clock: Option<Clock>,
    masking: Masking,
    lines: Lines,
    channels: BTreeMap<ChannelNo, Channel>,
    numbers: Numbers,
}

/// The numbers that were given.
#[derive(Default)]
struct Numbers {
    command: u32,
    file: u32,
    forward: u32,
}

impl Analysis {
    /// At the session's start. Without a clock there are no calendar times.
    #[must_use]
    pub fn new(clock: Option<Clock>, masking: Masking) -> Self {
        Self {
            clock,
            masking,
            lines: Lines::default(),
            channels: BTreeMap::new(),
            numbers: Numbers::default(),
        }
    }

    /// Takes the next event. `content` is its data: none for an event that has none, or whose data is missing.
    pub fn event(&mut self, event: &Event, content: &[u8], out: &mut dyn Findings) {
        let Self { clock, masking, lines, channels, numbers } = self;
        if !channels.contains_key(&event.ch) {
            if channels.len() == CHANNELS_MAX {
                return;
            }
            channels.insert(event.ch, Channel::new(event.ch));
        }
        let room = match event.what {
            What::Shell | What::Exec(_) | What::WindowChange(_) => {
                let others = channels.iter().filter(|(ch, _)| **ch != event.ch);
                CELLS_MAX.saturating_sub(others.map(|(_, channel)| channel.cells()).sum())
            }
            _ => 0,
        };
        let Some(channel) = channels.get_mut(&event.ch) else { return };
        let mut out = Finishing { clock: *clock, masking, lines, numbers, out };
        channel.event(event, content, room, &mut out);
        if channel.is_over() {
            channels.remove(&event.ch);
        }
    }

    /// Whether this event's data is looked at. If not, [`Self::event`] can do without, which spares reading it.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        match event.what {
            What::Exec(_) => true,
            _ => self.channels.get(&event.ch).is_some_and(|channel| channel.wants(event)),
        }
    }

    /// The recording ends here; says what was under way.
    pub fn finish(self, out: &mut dyn Findings) {
        let Self { clock, masking, mut lines, channels, mut numbers } = self;
        let mut out = Finishing { clock, masking: &masking, lines: &mut lines, numbers: &mut numbers, out };
        for (_, channel) in channels {
            channel.finish(&mut out);
        }
    }
}

/// Gives findings their numbers and calendar times, and masks what is secret in them.
struct Finishing<'a> {
    clock: Option<Clock>,
    masking: &'a Masking,
    lines: &'a mut Lines,
    numbers: &'a mut Numbers,
    out: &'a mut dyn Findings,
}

impl Finishing<'_> {
    fn date(&self, span: &mut Span) {
        span.started_at = self.clock.and_then(|clock| clock.at(span.t));
        span.ended_at = self.clock.zip(span.t_end).and_then(|(clock, t)| clock.at(t));
    }
}

fn next(number: &mut u32) -> u32 {
    *number = number.saturating_add(1);
    *number
}

/// A mask may be longer than what it stands for.
fn bounded(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(COMMAND_CHARS_MAX)
        && let Some((last, _)) = text[..end].char_indices().next_back()
    {
        text.truncate(last);
        text.push('…');
    }
    text
}

impl Findings for Finishing<'_> {
    fn command(&mut self, mut command: Command) {
        command.n = next(&mut self.numbers.command);
        self.date(&mut command.span);
        let mut full_screen = std::mem::take(&mut command.full_screen);
        full_screen.iter_mut().for_each(|span| self.date(span));
        command.full_screen = full_screen;
        let (text, masked) = self.masking.mask(&command.text);
        (command.text, command.masked) = (bounded(text.into_owned()), masked);
        self.out.command(command);
    }

    fn file(&mut self, mut file: FileAccess) {
        file.n = next(&mut self.numbers.file);
        self.date(&mut file.span);
        self.out.file(file);
    }

    fn forward(&mut self, mut forward: Forward) {
        forward.n = next(&mut self.numbers.forward);
        self.date(&mut forward.span);
        self.out.forward(forward);
    }

    fn line(&mut self, mut line: TranscriptLine) {
        let masked = self.lines.mask(self.masking, line.ch, line.pane.as_deref(), &line.text);
        if let Cow::Owned(masked) = masked {
            line.text = masked;
        }
        self.out.line(line);
    }
}
