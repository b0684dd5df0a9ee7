//! One channel of a session as a viewer follows it: output, window sizes, marks, in its own time.
//!
//! A player shows one terminal. Which one is decided here, and what happened beside it is told.

use std::{collections::BTreeMap, ops::ControlFlow};

use weir_common::{
    frame::{ChannelType, Direction},
    recording::{Event, What, findings::Command},
    session::ChannelNo,
};

use crate::{
    emulator::Size,
    findings::masked,
    recording::{Item, Recording, content_bytes},
    show,
};

/// The most channels that are told apart.
const CHANNELS_MAX: usize = 1000;
/// The most warnings that are kept.
const WARNINGS_MAX: usize = 50;

/// The channel that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Its number.
    pub channel: ChannelNo,
    /// Its terminal's size at first.
    pub size: Size,
    /// Its terminal's name; `None` where there was no terminal.
    pub term: Option<String>,
    /// The command that ran on it, where there was one instead of a shell. Secrets in it are masked.
    pub command: Option<String>,
    /// Kernel time of its first event.
    pub start: u64,
}

/// What is known of a channel while one is chosen.
#[derive(Default)]
struct Candidate {
    start: u64,
    term: Option<(String, Size)>,
    command: Option<String>,
    /// It carries a protocol and no text.
    protocol: bool,
    has_output: bool,
}

impl Candidate {
    fn track(&self, channel: ChannelNo) -> Track {
        let (term, size) = self.term.clone().unzip();
        let size = size.unwrap_or_default();
        Track { channel, size, term, command: self.command.clone(), start: self.start }
    }
}

/// Chooses what to follow: the channel that is wanted, else the first with a terminal, else the first with output
/// that may be text. Reads no further than it has to.
#[must_use]
pub fn choose(recording: &Recording, wanted: Option<ChannelNo>) -> Option<Track> {
    let mut seen: BTreeMap<ChannelNo, Candidate> = BTreeMap::new();
    for item in recording.events() {
        let Item::Event(event, bulk) = item else { continue };
        if wanted.is_some_and(|wanted| wanted != event.ch) {
            continue;
        }
        if seen.len() == CHANNELS_MAX && !seen.contains_key(&event.ch) {
            continue;
        }
        let fresh = || Candidate { start: event.t, ..Candidate::default() };
        let candidate = seen.entry(event.ch).or_insert_with(fresh);
        match &event.what {
            What::Open { channel } => candidate.protocol |= *channel != ChannelType::Session,
            What::Pty(pty) => candidate.term = Some((pty.term.clone(), pty.size.into())),
            What::Exec(content) => {
                candidate.command = Some(masked(content_bytes(content, bulk.as_deref())));
            }
            What::Subsystem { .. } => candidate.protocol = true,
            What::Stdout(_) | What::Stderr(_) => candidate.has_output = true,
            _ => {}
        }
        let runs = matches!(event.what, What::Shell | What::Exec(_)) || candidate.has_output;
        if runs && (wanted.is_some() || candidate.term.is_some()) {
            return Some(candidate.track(event.ch));
        }
    }
    let with_text = |(_, candidate): &(&ChannelNo, &Candidate)| candidate.has_output && !candidate.protocol;
    let found = seen.iter().find(with_text).or_else(|| seen.iter().next().filter(|_| wanted.is_some()));
    found.map(|(channel, candidate)| candidate.track(*channel))
}

/// Something that a viewer of the channel notices.
pub enum Beat<'a> {
    /// What its terminal was sent.
    Output(&'a [u8]),
    /// What was typed.
    Typed(&'a [u8]),
    /// The window's new size.
    Resize(Size),
    /// A command began here.
    Command(&'a Command),
    /// Something is missing here, in words.
    Gap(String),
    /// The program's exit code.
    Exit(u32),
}

/// What else there was.
#[derive(Debug, Default)]
pub struct Beside {
    /// Other channels and what ran on them, without the connection's own.
    pub others: BTreeMap<ChannelNo, String>,
    /// What does not fit together.
    pub warnings: Vec<String>,
}

/// Takes what there is at a time; says whether there shall be more.
pub type Each<'a, E> = dyn FnMut(u64, Beat<'_>) -> Result<ControlFlow<()>, E> + 'a;

/// Follows a track to its end. Times are nanoseconds since its start and never go back. What else there was goes into `beside`,
/// also where `each` fails.
///
/// # Errors
/// What `each` returns.
pub fn follow<E>(
    recording: &Recording,
    track: &Track,
    commands: &[Command],
    beside: &mut Beside,
    each: &mut Each<'_, E>,
) -> Result<(), E> {
    let mut marks: Vec<_> = commands.iter().filter(|command| command.ch == track.channel).collect();
    marks.sort_by_key(|command| command.span.t);
    let mut marks = marks.into_iter().peekable();
    let mut now = 0;
    for item in recording.events() {
        let (event, bulk) = match item {
            Item::Event(event, bulk) => (event, bulk),
            Item::Warning(warning) => {
                if beside.warnings.len() < WARNINGS_MAX {
                    beside.warnings.push(warning);
                }
                continue;
            }
        };
        if event.ch != track.channel {
            beside.note(&event, bulk.as_deref());
            continue;
        }
        while let Some(mark) = marks.next_if(|mark| mark.span.t <= event.t) {
            now = now.max(mark.span.t.saturating_sub(track.start));
            if each(now, Beat::Command(mark))?.is_break() {
                return Ok(());
            }
        }
        now = now.max(event.t.saturating_sub(track.start));
        let Some(beat) = beat(&event, bulk.as_deref()) else { continue };
        if each(now, beat)?.is_break() {
            return Ok(());
        }
    }
    Ok(())
}

/// What a viewer notices of an event.
#[must_use]
pub fn beat<'a>(event: &'a Event, bulk: Option<&'a [u8]>) -> Option<Beat<'a>> {
    Some(match &event.what {
        What::Stdout(content) | What::Stderr(content) => Beat::Output(content_bytes(content, bulk)),
        What::Stdin(content) if event.dir == Direction::ClientToTarget => {
            Beat::Typed(content_bytes(content, bulk))
        }
        What::Pty(pty) => Beat::Resize(pty.size.into()),
        What::WindowChange(size) => Beat::Resize((*size).into()),
        What::Gap(gap) => {
            let length = show::gap_length(event).unwrap_or_default();
            Beat::Gap(format!("{}, for {length}", show::gap(gap)))
        }
        What::ExitStatus { status } => Beat::Exit(*status),
        _ => return None,
    })
}

impl Beside {
    fn note(&mut self, event: &Event, bulk: Option<&[u8]>) {
        let words = match &event.what {
            What::Shell | What::Exec(_) | What::Subsystem { .. } => show::describe(&event.what, bulk),
            What::Open { channel } if !matches!(channel, ChannelType::Session | ChannelType::Connection) => {
                show::describe(&event.what, bulk)
            }
            _ => None,
        };
        if let Some(words) = words
            && self.others.len() < CHANNELS_MAX
        {
            self.others.insert(event.ch, words);
        }
    }
}
